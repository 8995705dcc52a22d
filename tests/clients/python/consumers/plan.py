"""All messages of a seed, queue by queue.

Used by ../queues.py. The same seed and count give the same messages; accounts refer to
the launches of the same seed.
"""

from . import apps, logs
from .clicks import Click
from .events import Events
from .partners import Graphy, WebEngageEvent, WebEngageUser
from .refused import ErrorEvents
from .topology import producible
from .vendors import Branch, Shopify

LAUNCHES = "launch_refer_event_q"


def families(seed, count):
    """What makes each queue's messages, by queue."""
    simple = [Events(), ErrorEvents(), Click(), *apps.families(), *logs.families()]
    simple += [Branch(), Shopify(), WebEngageEvent(), WebEngageUser(), Graphy()]
    by_queue = {family.queue: family for family in simple}
    launches = list(by_queue[LAUNCHES].messages(seed, count))
    by_queue.update((family.queue, family) for family in apps.accounts(launches))
    return by_queue


def messages(seed, count, queues=None):
    """The messages of these queues, or of all, those of different queues in turn."""
    by_queue = families(seed, count)
    chosen = queues or producible()
    unknown = set(chosen) - set(by_queue)
    if unknown:
        raise SystemExit(f"no messages are made for {sorted(unknown)}; there are {sorted(by_queue)}")
    for turn in zip(*(by_queue[queue].messages(seed, count) for queue in chosen)):
        yield from turn

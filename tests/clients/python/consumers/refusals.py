"""The judge of error queues: every refused message is there once, as it was sent and
with its reason, and nothing else is.

Used by ../queues.py.
"""

import base64
import collections
import json
import sys

from .topology import ROUTES, error_queues

KEPT = ("message_id", "content_type", "app_id", "correlation_id", "type", "timestamp")


def plain(value):
    """Protobuf JSON in one form: whole numbers as text, zero values left out."""
    if isinstance(value, dict):
        kept = {key: plain(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, "", "0", False, [], {})}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return str(int(value)) if value == int(value) else value


def canonical(events):
    return json.dumps(plain(events), sort_keys=True)


def missing(looker, expected):
    """Error queues that hold fewer messages than they must: (found, expected)."""
    wanted = collections.Counter(error["queue"] for _, _, error in expected.errors)
    found = looker.waiting(wanted)
    return {queue: (found[queue], count) for queue, count in wanted.items() if (found[queue] or 0) < count}


def errors(looker, expected, partial, killed_to):
    """Gives how many messages the error queues hold, and how many of them again.

    `partial`: some need not be there yet, and queues with a consumer hold what it has to
    do. Of messages up to the number `killed_to` each
    may be there again: the collector was killed between handing one over and
    acknowledging it.
    """
    total = again = 0
    for queue, count in looker.waiting(error_queues()).items():
        if count is None or (partial and queue in ROUTES):
            continue
        wanted = [each for each in expected.errors if each[2]["queue"] == queue]
        found = looker.messages(queue)
        comparison = Comparison(wanted, killed_to)
        for _, properties, body in found:
            comparison.message(properties, body)
        wrong = comparison.wrong + ([] if partial else comparison.missing())
        if wrong:
            sys.exit(f"{queue}, {len(found)} messages, {len(wanted)} expected:\n  " + "\n  ".join(wrong[:5]))
        total += len(found)
        again += comparison.again
    return total, again


class Comparison:
    """One error queue's messages against the expected ones."""

    def __init__(self, wanted, killed_to):
        self.index, self.found, self.killed_to = collections.defaultdict(list), collections.Counter(), killed_to
        self.wrong, self.again = [], 0
        for at, (entry, queue, error) in enumerate(wanted):
            body = canonical(error["events"]) if "events" in error else entry["body"]
            self.index[body].append((at, entry, queue, error))

    def message(self, properties, body):
        places = self.index.get(body)
        if not places:
            try:
                places = self.index.get(canonical(json.loads(body)))
            except ValueError:
                pass
        if not places:
            self.wrong.append(f"not expected: {body[:200]!r} {properties.headers}")
            return
        # Some bodies are sent more than once, such as empty ones.
        fits = [place for place in places if not differences(properties, place)]
        if not fits:
            self.wrong.append(f"{body[:100]!r}: {differences(properties, places[0])}")
            return
        at, entry, *_ = min(fits, key=lambda place: self.found[place[0]])
        self.found[at] += 1
        if self.found[at] > 1:
            self.again += 1
            if entry["n"] >= self.killed_to:
                self.wrong.append(f"{self.found[at]} times: {body[:200]!r}")

    def missing(self):
        places = [place for places in self.index.values() for place in places]
        return [f"missing: {entry['kind']} {entry['body'][:200]!r}" for at, entry, *_ in places if not self.found[at]]


def differences(properties, place):
    """What differs between a message in an error queue and what was sent."""
    _, entry, consumer, error = place
    sent, headers = entry["properties"], properties.headers or {}
    wrong = []
    reason = headers.get("x-holdfast-reason", "")
    if not reason or any(part not in reason for part in error["reason"]):
        wrong.append(f"reason {reason!r} instead of {error['reason']}")
    for name, value in {"x-holdfast-queue": consumer, "x-holdfast-routing-key": entry["key"]}.items():
        if headers.get(name) != value:
            wrong.append(f"{name} {headers.get(name)!r} instead of {value!r}")
    for name, value in sent.get("headers", {}).items():
        # A reason of another host gives way to ours.
        if name != "x-holdfast-reason" and headers.get(name) != value:
            wrong.append(f"header {name} {headers.get(name)!r} instead of {value!r}")
    for name in KEPT:
        value = getattr(properties, name)
        # A part of a message has an id of its own.
        is_part = name == "message_id" and "events" in error and sent.get(name)
        if value != sent.get(name) and not (is_part and str(value).startswith(sent[name])):
            wrong.append(f"{name} {value!r} instead of {sent.get(name)!r}")
    if properties.delivery_mode != 2:
        wrong.append(f"delivery mode {properties.delivery_mode}")
    return wrong


def repair(expected, shown, mended):
    """Writes the letters of the file `shown` with mended bodies; gives their number."""
    places = collections.defaultdict(list)
    for entry, _, error in expected.errors:
        body = canonical(error["events"]) if "events" in error else entry["body"]
        places[error["queue"], body].append((entry, error))
    used, count = collections.Counter(), 0
    with open(shown, encoding="utf-8") as letters, open(mended, "w", encoding="utf-8") as out:
        for line in letters:
            letter = json.loads(line)
            body = letter["body"].encode() if "body" in letter else base64.b64decode(letter["body_base64"])
            fits = places.get((letter["place"], body))
            if not fits:
                fits = places.get((letter["place"], canonical(json.loads(body))), [])
            # Of messages that are alike each is mended, the ones that came again last.
            fits = [(entry, error) for entry, error in fits if alike(letter, entry, error)]
            if not fits:
                sys.exit(f"the record does not have {line[:300]}")
            entry, error = min(fits, key=lambda fit: used[fit[0]["queue"], fit[0]["n"], fit[1]["queue"]])
            used[entry["queue"], entry["n"], error["queue"]] += 1
            out.write(json.dumps({"id": letter["id"], "body": base64.b64decode(error["repaired"]["body"]).decode()}) + "\n")
            count += 1
    return count


def alike(letter, entry, error):
    """Whether a letter can be this message: by its key, and by its id unless it is a part."""
    same_id = "events" in error or letter["message_id"] == entry["properties"].get("message_id")
    return same_id and letter["type"] == entry["key"]


def retried(looker):
    """How many messages wait in all queues, and those of them that have spent an attempt."""
    looked_at, spent = 0, []
    for queue, count in looker.waiting(sorted({*ROUTES, *error_queues()})).items():
        for _, properties, body in looker.messages(queue) if count else []:
            looked_at += 1
            if (properties.headers or {}).get("x-retry-count"):
                spent.append((queue, properties.headers, body[:100]))
    return looked_at, spent

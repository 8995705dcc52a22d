"""The judge of error queues and of calls.

Used by ../queues.py. Every refused message is in its error queue once, as it was sent
and with its reason; every call was made once.
"""

import collections
import json
import sys

from .compare import difference
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


def errors(looker, expected, seconds):
    """Gives how many messages the error queues hold, all of them expected."""
    by_queue = collections.Counter(error["queue"] for _, _, error in expected.errors)
    # A queue that a running consumer empties holds what that one refused, at most.
    queues = error_queues()
    held = lambda: {  # noqa: E731
        queue: (count, by_queue[queue])
        for queue, count in looker.waiting(queues).items()
        if (count or 0) < by_queue[queue]
    }
    looker.until("error queues hold (found, expected)", seconds, held)
    total = 0
    for queue in queues:
        if looker.waiting([queue])[queue] is None:
            continue
        found = looker.messages(queue)
        total += len(found)
        wanted = [each for each in expected.errors if each[2]["queue"] == queue]
        wrong = compare(found, wanted)
        if wrong:
            sys.exit(f"{queue}, {len(found)} messages, {len(wanted)} expected:\n  " + "\n  ".join(wrong[:5]))
    return total


def compare(found, wanted):
    """What is wrong with an error queue's messages."""
    index, wrong = collections.defaultdict(list), []
    for each in wanted:
        entry, _, error = each
        index[canonical(error["events"]) if "events" in error else entry["body"]].append(each)
    for method, properties, body in found:
        places = index.get(body)
        if not places:
            try:
                places = index.get(canonical(json.loads(body)))
            except ValueError:
                pass
        match = next((each for each in places or [] if not differences(properties, each)), None)
        if match is not None:
            places.remove(match)
        elif places:
            wrong.append(f"{body[:100]!r}: {differences(properties, places[0])}")
        else:
            wrong.append(f"not expected or twice: {body[:200]!r} {properties.headers}")
    missing = [each for places in index.values() for each in places]
    wrong += [f"missing: {entry['kind']} {entry['body'][:200]!r}" for entry, _, _ in missing]
    return wrong


def differences(properties, each):
    entry, consumer, error = each
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


def retried(looker):
    """Messages in any queue that have spent an attempt."""
    queues = sorted({*ROUTES, *error_queues()})
    spent = []
    for queue, count in looker.waiting(queues).items():
        if count:
            for _, properties, body in looker.messages(queue):
                if (properties.headers or {}).get("x-retry-count"):
                    spent.append((queue, properties.headers, body[:100]))
    return spent


def calls(path, expected, repeats_max):
    """`path` has a JSON line for each call: path, key, authorization, headers, body, status."""
    made = collections.defaultdict(list)
    with open(path, encoding="utf-8") as file:
        for line in file:
            call = json.loads(line)
            body = json.loads(call["body"])
            user = body.get("userId") or body.get("anonymousId")
            if user is None:
                user = next(each["value"] for each in body["filters"] if each["field"] == "email")
            made[call["path"], user].append({**call, "body": body})
    wrong, repeats, count = [], 0, 0
    for entry, outcome, error in expected.calls:
        wanted = []
        if "call" in outcome:
            call = outcome["call"]
            # A refused call is made at each attempt.
            answers = [400] * 3 if error else call["answers"]
            wanted.append((call["path"], call["user"], call["body"], call["headers"], f"Bearer {call['account']}-key", answers))
        if "search" in outcome:
            search = outcome["search"]
            wanted.append(("/userclientaccount/search", search["email"], None, search["headers"], None, [200]))
        for place in wanted:
            found = made.pop(place[:2], [])
            count += len(found)
            repeats += max(0, len(found) - len(place[5]))
            fault = call_fault(found, place)
            if fault:
                wrong.append(f"{entry['kind']} {place[:2]}: {fault}")
    wrong += [f"not expected: {place}, {len(found)} times" for place, found in made.items()]
    if wrong:
        sys.exit(f"{len(wrong)} calls are wrong:\n  " + "\n  ".join(wrong[:8]))
    if repeats > repeats_max:
        sys.exit(f"{repeats} calls were made again, at most {repeats_max} may be")
    return count, repeats


def call_fault(found, place):
    _, _, body, headers, authorization, answers = place
    if len(found) < len(answers):
        return f"made {len(found)} times, not {len(answers)}"
    if len({call["key"] for call in found}) != 1 or not found[0]["key"]:
        return f"idempotency keys {[call['key'] for call in found]}"
    statuses = [call["status"] for call in found]
    # A call in work when the collector is killed is made once more.
    if statuses[: len(answers)] != answers or set(statuses[len(answers) :]) - {answers[-1]}:
        return f"answered {statuses}, not {answers}"
    for call in found:
        if authorization and call["authorization"] != authorization:
            return f"authorization {call['authorization']!r}"
        sent = {name: value for name, value in call["headers"].items() if name.startswith("x-bb-")}
        if sent != headers:
            return f"headers {sent} instead of {headers}"
        wrong = body and difference(call["body"], body)
        if wrong:
            return wrong
    return None

"""Batches with known content: every event type, and values from the edges.

Used by the scripts beside it; the same on every run.
"""

import itertools

TEXTS = [
    "banner",
    "Kajal – 12h स्मज-प्रूफ",
    "口红 #3 \"ruby\"",
    "a'b\\c/d",
    "line one\nline two\ttab\u2028\u007f",
    "🛍️👩🏽‍🦱",
    "null",
    "</script>&amp;",
    "1e400",
    "",
]
INT64 = [2**63 - 1, -(2**63), 2**53 + 1, -1, 0, 1234567890123456789]
INT32 = [2**31 - 1, -(2**31), 7, 0]
# Single precision: rounded, exact, near the largest (the largest itself Python's parser
# refuses from its own writer), the smallest, and what is no number.
FLOATS = [499.99, 0.1, -2.5, 3.4028232635611926e38, 1.1754943508222875e-38, 1.401298464324817e-45, 16777217.0]
FLOATS += [float("nan"), float("inf"), float("-inf"), 0.0]
MAPS = [
    {"model": "als", "bucket.label": "", "": "empty key"},
    {"ключ": "значение", "🗝": "🔑", "x\"y": "\\"},
    {},
    {"1": "one", "deep.er.key": "v"},
]
# protobuf's numbers of the types that the contract uses.
KINDS = {2: "float", 3: "int64", 5: "int32", 8: "bool", 9: "text"}
# A field of `Event` that the contract does not have.
UNKNOWN_NUMBER = 9001


class Samples:
    """Makes batches; each call goes on where the last one stopped."""

    def __init__(self, messages):
        self.messages = messages
        self.values = {kind: itertools.cycle(values) for kind, values in
                       {"text": TEXTS, "int64": INT64, "int32": INT32, "float": FLOATS, "map": MAPS,
                        "bool": [True, False], "count": [3, 0, 1]}.items()}
        self.ids = itertools.count(1)

    def next(self, kind):
        return next(self.values[kind])

    def batches(self):
        """All that a test dispatches: each type twice, mixed types, types unknown and unset."""
        cases = [field.name for field in self.messages.Event.DESCRIPTOR.oneofs_by_name["EventOf"].fields]
        yield self.batch(cases)
        yield self.batch(reversed(cases))
        mixed = ["launchEvent", "testEvent", "launchEvent", "launchEvent", "otpVerifiedEvent", "testEvent"]
        yield self.batch(mixed)
        yield self.batch(["launchEvent", UNKNOWN_NUMBER, None, UNKNOWN_NUMBER])

    def batch(self, cases):
        batch = self.messages.Events()
        self.fill(batch.header)
        batch.header.deviceId = "python-device"
        for case in cases:
            number = next(self.ids)
            event = batch.events.add()
            if case == UNKNOWN_NUMBER:
                # Tag of a length-delimited field, and a submessage: {4: "new"}.
                tag = UNKNOWN_NUMBER << 3 | 2
                event.MergeFromString(bytes([tag & 0x7F | 0x80, tag >> 7 & 0x7F | 0x80, tag >> 14]) + b"\x05\x22\x03new")
            elif case:
                getattr(event, case).SetInParent()
                self.fill(getattr(event, case))
            event.id = f"python-{number}"
            event.timestamp = str(1_700_000_000_123 + 977 * number)
            event.currentURL = f"https://shop.example/ü?n={number}" if number % 3 == 0 else ""
        return batch

    def fill(self, message):
        """Sets every field, some to their zero."""
        for field in message.DESCRIPTOR.fields:
            if field.message_type and field.message_type.GetOptions().map_entry:
                getattr(message, field.name).update(self.next("map"))
            elif field.is_repeated:
                getattr(message, field.name).extend(self.next("int64") for _ in range(self.next("count")))
            elif field.message_type:
                self.fill(getattr(message, field.name))
            else:
                setattr(message, field.name, self.next(KINDS[field.type]))

"""Events that another collector refused, for `error_events`.

Used by `plan`.
"""

import base64

from .events import CLICKHOUSE_ERRORS, TYPES, Events, columns_of, event, header
from .message import Message, encode, error, place, properties, refusal, refused_text, row, unreadable
from .values import expect


class ErrorEvents(Events):
    """Refused events as another collector hands them on: `error_events` takes nearly all."""

    queue = CLICKHOUSE_ERRORS
    ways = [("not_json",), ("refused",), ("wrong_type",), ("not_utf8",)]

    def message(self, draw, n, way):
        case = draw.choice(list(TYPES))
        head, head_columns = header(draw, f"refused-{n}")
        head["sessionId"] = head_columns["session_id"] = f"session-{n}-{draw.hex(6)}"
        if draw.chance(0.3):
            head["deviceId"] = head_columns["device_id"] = ""
        body, own = event(draw, case, "" if draw.chance(0.3) else f"refused-{n}")
        if not body["id"]:
            own["event_id"] = expect.ANY
        if draw.chance(0.2):
            body["timestamp"], own["event_timestamp"] = draw.choice(["yesterday", ""]), None
        columns = columns_of(head_columns, own, body)
        if way and way[0] == "refused":
            head["merchantId"] = columns["merchant_id"] = refused_text(draw)
        whole = {"header": head, "events": [body]}
        message = Message(self.queue, n, whole)
        message.properties, _ = properties(draw, n, self.queue)
        columns["error_reason"] = ""
        if draw.chance(0.5):
            columns["error_reason"] = "incomplete event, said by another host"
            message.properties.setdefault("headers", {})["x-holdfast-reason"] = columns["error_reason"]
        good = {"queue": self.queue, "rows": [row("error_events", ["session_id"], columns)]}
        message.outcomes = [good]
        if way:
            message.kind = way[0]
            again = {"body": base64.b64encode(message.body).decode(), **good}
            reason = []
            if way[0] == "refused":
                reason = refusal()
            elif way[0] == "wrong_type":
                place(whole, ["header", "bbDeviceId"], "device seven")
                message.body, reason = encode(whole), ["JSON"]
            else:
                message.body, _ = unreadable(draw, message.body, way[0])
            message.outcomes = [error(self.queue, reason, again)]
        return message

"""Messages of partners that become calls: WebEngage's events and users, Graphy's events.

Used by `plan`. Each goes to one or two consumers: one makes calls, one writes a row.
"""

import base64
import json

from .message import Message, broken_places, encode, error, properties, refusal, refused_text, row, unreadable
from .topology import UNWELCOME
from .values import KOLKATA, Draw, expect, utc
from .vendors import FOREIGN


def without_nulls(fields):
    return {key: value for key, value in fields.items() if value is not None}


def forwarded(bb):
    """Headers that go along with a call."""
    return {name: value for name, value in bb.items() if name.startswith("x-bb-")}


def call(queue, path, account, body, bb, user, answers=(201,)):
    """`user` is how the call is found among all; `answers` what it gets, one after the other."""
    return {
        "queue": queue,
        "call": {"path": path, "account": account, "user": user, "body": body, "headers": forwarded(bb), "answers": list(answers)},
    }


def repaired(body, outcome):
    """The outcome once the cause is mended; a copy, since bodies are changed."""
    return {"body": base64.b64encode(body).decode(), **json.loads(json.dumps(outcome))}


class Partner:
    """Messages that one or two consumers take; subclasses make each kind."""

    queue = None
    # Ways to break a message: method and kind.
    ways = []

    def messages(self, seed, count):
        broken = broken_places(seed, self.queue, count)
        for n in range(count):
            draw = Draw(f"{seed}/{self.queue}/{n}")
            way = self.ways[broken.index(n) % len(self.ways)] if n in broken else None
            message = Message(self.queue, n, {})
            message.properties, bb = properties(draw, n, self.queue)
            body = self.body(draw, n)
            good = self.outcomes(body, bb)
            message.key = self.route_key(body) or message.key
            message.body, message.outcomes = encode(body), good
            if way:
                self.spoil(draw, message, way, body, bb)
            yield message

    def route_key(self, body):
        return None

    def spoil(self, draw, message, way, body, bb):
        message.kind = way[0]
        good = {outcome["queue"]: repaired(message.body, outcome) for outcome in message.outcomes}
        if way[0] in ("not_json", "not_utf8"):
            message.body, reason = unreadable(draw, message.body, way[0])
            message.outcomes = [error(queue, reason, good[queue]) for queue in good]
            return
        reasons = getattr(self, way[1])(draw, body)
        message.body = encode(body)
        # What another consumer makes of the changed message, or this one later.
        changed = {outcome["queue"]: outcome for outcome in self.outcomes(body, bb)}
        if way[0] == "refused":
            good = {queue: repaired(message.body, outcome) for queue, outcome in changed.items()}
        message.outcomes = [
            error(queue, reasons[queue], good[queue]) if queue in reasons else changed[queue] for queue in good
        ]


class WebEngageEvent(Partner):
    queue = "webengage_event_q"
    ways = [
        ("not_json",), ("refused", "refused_by_the_api"), ("missing", "no_account"), ("wrong_type", "list_for_data"),
        ("refused", "refused_by_the_table"), ("not_utf8",), ("missing", "no_time"), ("wrong_type", "no_such_account"),
    ]

    def body(self, draw, n):
        ms = draw.second_ms()
        kind = draw.choice(["USER", "BRAND", None])
        name = draw.choice(["Product Viewed", "खरीद पूरी", "Added To Cart"])
        if kind is None:
            name = draw.choice(["Extension Profile Visited", "extension profile visited", "VS - Campaign Opened"])
        zoned = f"{utc(ms).astimezone(KOLKATA):%Y-%m-%dT%H:%M:%S%z}"
        body = {
            "appType": kind,
            draw.choice(["userId", "anonymousId"]): f"we-{n}-{draw.hex(6)}",
            "eventName": name,
            "eventTime": draw.choice([f"{utc(ms):%Y-%m-%dT%H:%M:%S}Z", zoned]),
            "eventData": {"price": 12.5, "id": 2**53 + n, "gone": None, "note": draw.text(60), "list": [1, 2], "deep": {"x": None, "y": True}},
        }
        if kind is None and draw.chance(0.5):
            del body["appType"]
        if n % 50 == 7:
            # The server is busy once for such a user.
            body["eventData"]["note"] = "busy-once"
        self.ms = ms
        return body

    def outcomes(self, body, bb):
        user = body.get("userId") or body.get("anonymousId")
        account = str(body.get("appType") or "BRAND")
        columns = {
            "id": expect.ANY,
            "event_name": body["eventName"],
            "account_type": account,
            "timestamp": expect.time(self.ms),
            "user_id": body.get("userId", ""),
            "anonymous_id": body.get("anonymousId", ""),
            "data": expect.doc(body["eventData"]),
            **FOREIGN,
        }
        posted = {key: value for key, value in body.items() if key != "appType"}
        posted["eventData"] = without_nulls(body["eventData"]) if isinstance(body["eventData"], dict) else None
        answers = (503, 201) if "busy-once" in encode(body).decode() else (201,)
        path = f"/{account.lower()}/events"
        return [
            call("webengage_event_q", path, account.lower(), posted, bb, user, answers),
            {
                "queue": "webengage_ch_event_q",
                "rows": [row("webengage_events", ["user_id", "anonymous_id"], columns)],
            },
        ]

    def refused_by_the_api(self, draw, body):
        body["eventData"]["note"] = f"{UNWELCOME} {draw.hex(6)}"
        return {"webengage_event_q": ["webengage answered 400", "marked"]}

    def refused_by_the_table(self, draw, body):
        body.update(appType="USER", eventName=f"taken by the api, {refused_text(draw)}")
        return {"webengage_ch_event_q": refusal()}

    def no_account(self, draw, body):
        body.pop("appType", None)
        body["eventName"] = "Product Viewed"
        return {"webengage_event_q": ["Invalid app type"]}

    def no_such_account(self, draw, body):
        body["appType"] = 5
        return {"webengage_event_q": ["appType"], "webengage_ch_event_q": ["appType"]}

    def list_for_data(self, draw, body):
        body["eventData"] = ["x"]
        return {"webengage_event_q": ["eventData"], "webengage_ch_event_q": ["eventData"]}

    def no_time(self, draw, body):
        del body["eventTime"]
        return {"webengage_ch_event_q": ["eventTime"]}


class WebEngageUser(Partner):
    queue = "webengage_user_event_q"
    ways = [
        ("not_json",), ("refused", "refused_by_the_api"), ("missing", "no_account"), ("wrong_type", "list_for_attributes"),
        ("not_utf8",), ("wrong_type", "no_such_account"),
    ]

    def body(self, draw, n):
        body = {
            "appType": draw.choice(["USER", "BRAND"]),
            "userId": f"we-user-{n}-{draw.hex(6)}",
            "phone": "+919876543210",
            "email": f"u{n}@mail.example",
            "firstName": draw.choice(["अनु", "José", "O'Neil"]),
            "whatsappOptIn": draw.chance(0.5),
            "attributes": {"big": 2**53 + n, "gone": None, "city": draw.text(60), "score": 0.1, "birth": "1986-08-19T15:45:00-0800"},
        }
        if n % 50 == 7:
            body["attributes"]["city"] = "busy-once"
        return body

    def outcomes(self, body, bb):
        posted = {key: value for key, value in body.items() if key != "appType"}
        if isinstance(body["attributes"], dict):
            posted["attributes"] = without_nulls(body["attributes"])
        account = str(body.get("appType", "USER")).lower()
        answers = (503, 201) if body["attributes"] and "busy-once" in encode(body).decode() else (201,)
        return [call(self.queue, f"/{account}/users", account, posted, bb, body["userId"], answers)]

    def refused_by_the_api(self, draw, body):
        body["attributes"]["city"] = f"{UNWELCOME} {draw.hex(6)}"
        return {self.queue: ["webengage answered 400", "marked"]}

    def no_account(self, draw, body):
        del body["appType"]
        return {self.queue: ["Invalid app type"]}

    def no_such_account(self, draw, body):
        body["appType"] = "ADMIN"
        return {self.queue: ["Invalid app type"]}

    def list_for_attributes(self, draw, body):
        body["attributes"] = []
        return {self.queue: ["attributes"]}


class Graphy(Partner):
    queue = "graphy_event_q"
    ways = [
        ("not_json",), ("refused", "refused_by_the_table"), ("wrong_type", "object_for_email"), ("not_utf8",),
        ("wrong_type", "object_for_name"), ("wrong_type", "no_time"),
    ]

    def route_key(self, body):
        return body["name"].upper()

    def body(self, draw, n):
        ms = draw.second_ms()
        self.ms = ms
        body = {
            "name": draw.choice(["signup", "course.completed", "NO_EVENT_NAME", "user assigned course"]),
            "receive-timestamp": ms // 1000,
            "x-eg-id": draw.uuid(),
            "x-eg-headers": {"Spayee-Event": ["signup"], "User-Agent": ["Graphy/1.0"]},
            "Course": draw.text(80),
            "Price": draw.choice([2**53 + n, 499.99]),
            "nested": draw.document(1),
        }
        # Known learners, accounts without WebEngage, strangers; and events of nobody.
        who = draw.choice(["learner", "learner", "plain", "nobody", None])
        if who:
            body[draw.choice(["Email", "Learner Email"])] = f"{who}-{n}@mail.example"
        return body

    def outcomes(self, body, bb):
        columns = {
            "id": body["x-eg-id"],
            "receive_timestamp": expect.time(self.ms),
            "insert_timestamp": expect.ANY,
            "event_name": body["name"],
            "event_data": expect.doc({key: value for key, value in body.items() if key != "x-eg-headers"}),
            "headers": expect.doc(body["x-eg-headers"]),
            **FOREIGN,
        }
        found = [{"queue": self.queue, "rows": [row("graphy_events", ["id"], columns)]}]
        calls = {"queue": "graphy_webengage_event_q"}
        email = body.get("Email") or body.get("Learner Email")
        if isinstance(email, str):
            calls["search"] = {"email": email, "headers": forwarded(bb)}
            if email.startswith("learner-"):
                texts = {key: value for key, value in body.items() if isinstance(value, str)}
                posted = {
                    "userId": f"we-{email}", "eventName": body["name"], "eventTime": expect.time(self.ms), "eventData": texts,
                }
                calls.update(call("graphy_webengage_event_q", "/user/events", "user", posted, bb, f"we-{email}"))
        return [*found, calls]

    def refused_by_the_table(self, draw, body):
        body["name"] = refused_text(draw)
        return {self.queue: refusal()}

    def object_for_email(self, draw, body):
        body.pop("Learner Email", None)
        body["Email"] = {"address": "x"}
        return {"graphy_webengage_event_q": ["Email"]}

    def object_for_name(self, draw, body):
        body["Email"] = "learner-named@mail.example"
        body["name"] = {}
        return {self.queue: ["name"], "graphy_webengage_event_q": ["name"]}

    def no_time(self, draw, body):
        body["Email"] = "learner-timed@mail.example"
        body["receive-timestamp"] = "soon"
        return {self.queue: ["receive-timestamp"], "graphy_webengage_event_q": ["receive-timestamp"]}

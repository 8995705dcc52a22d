"""Dispatched events in their queue form: protobuf JSON, int64 as text, zero fields left out.

Used by `plan` and `refused`. Each message goes to the consumers of ClickHouse and of
Postgres.
"""

import base64
import copy

from .message import (
    Message,
    broken_places,
    encode,
    error,
    properties,
    refusal,
    refused_text,
    row,
    unreadable,
)
from .topology import ERRORS_ONLY
from .values import Draw, expect
from .vendors import FOREIGN

CLICKHOUSE, POSTGRES = "grpc_clickhouse_event_q", "grpc_postgres_event_q"
CLICKHOUSE_ERRORS = "grpc_clickhouse_event_error_q"

# Columns of the header's fields, with the length that Postgres has for them.
HEADER = {
    "sessionId": ("session_id", 50), "deviceId": ("device_id", 50),
    "androidAdvertisingId": ("android_advertising_id", 50), "clientId": ("client_id", 30), "channel": ("channel", 20),
    "os": ("os", 30), "clientType": ("client_type", 20), "appLanguage": ("app_language", 20),
    "appVersion": ("app_version", 20), "appVersionCode": ("app_version_code", 20), "merchantId": ("merchant_id", 20),
    "utmReferrer": ("utm_referrer", 200), "utmPlatform": ("utm_platform", 50), "utmSource": ("utm_source", 80),
    "utmMedium": ("utm_medium", 80), "utmCampaign": ("utm_campaign", 80), "ppId": ("pp_id", 200),
}
RECO = {"model": "text", "personaType": "text", "personaValue": "text", "bucketLabel": "text", "recoInfoKV": "map"}
# Of the 56 types those with fields of every kind, and those whose names are odd.
TYPES = {
    "launchEvent": {"dynamicLink": "text", "appLaunchCount": "int64"},
    "pageOpenedEvent": {"pageQueryId": "text"},
    "widgetViewEvent": {
        "variantName": "text", "elementCount": "int64", "pageSlot": "int64", "recoInfo": "reco", "title": "text",
        "hasCTA": "bool", "recoInfoKV": "map", "pageNo": "int64", "isAffiliateProduct": "bool", "position": "int32",
    },
    "widgetElementClickedEvent": {
        "widgetId": "text", "position": "int64", "elementType": "text", "price": "float", "parentRecoInfoKV": "map", "isOOS": "bool",
    },
    "streamEnterEvent": {"streamId": "int64", "isLive": "bool", "productIds": "list", "sourceURL": "text"},
    "otpVerifiedEvent": {"profileName": "text", "isNewUser": "bool", "phoneNumber": "int64", "loginFlow": "text"},
    "addToCartEvent": {"productId": "int64", "quantity": "int32", "chargeableAmount": "int32", "checkoutId": "text"},
    "completePurchaseEvent": {
        "productId": "int64", "chargeableAmount": "float", "coupon": "text", "productIds": "list", "socialStreamIds": "list",
    },
    "SessionIdChangeEvent": {"oldSessionId": "text", "newSessionId": "text"},
    "pdpTagClickEvent": {"slug": "text", "productId": "int64", "defaultSelectionOn": "bool"},
    "pdpActionEvent": {"action": "text", "productId": "int64"},
    "actionBarBagCLickEvent": {"screen": "text", "redDot": "bool"},
    "submitReview": {"rating": "text", "reviewText0": "text", "mediaCountUploaded": "bool"},
    "testEvent": {"testParam1": "text", "testParam2": "int64"},
}


def field(draw, kind):
    """A field's JSON, and its value in the row; `None` there is a zero, left out."""
    if kind == "text":
        text = draw.text(120)
        return text, text or None
    if kind == "bool":
        flag = draw.chance(0.5)
        return flag, flag or None
    if kind == "int64":
        number = draw.choice([draw.whole(), 0])
        return number if draw.chance(0.1) else str(number), number or None
    if kind == "int32":
        number = draw.choice([0, 7, 2**31 - 1, -(2**31)])
        return number, number or None
    if kind == "float":
        number = draw.choice([0, 499.99, 0.1, -2.5, 16777216.0])
        return number, number or None
    if kind == "list":
        numbers = [draw.whole() for _ in range(draw.randint(0, 3))]
        return [str(number) for number in numbers], numbers or None
    if kind == "map":
        entries = {draw.choice(["model", "bucket.label", "ключ"]): draw.text(40) for _ in range(draw.randint(0, 2))}
        return entries, entries or None
    return fields(draw, RECO)


def fields(draw, kinds):
    """A message's JSON, and its values in the row."""
    body, values = {}, {}
    for name, kind in kinds.items():
        written, value = field(draw, kind)
        if value is not None:
            values[name] = value
        # Most writers leave zeros out, some do not.
        if value is not None or draw.chance(0.2):
            body[name] = written
    return body, values


def header(draw, device):
    """The header's JSON, and its columns."""
    body, columns = {}, {}
    for name, (column, chars) in HEADER.items():
        text = draw.text(chars)
        if name == "deviceId":
            text = device
        columns[column] = text
        if text or draw.chance(0.2):
            body[name] = text
    for name, column in (("bbDeviceId", "bb_device_id"), ("userId", "user_id")):
        written, value = field(draw, "int64")
        columns[column] = value or 0
        if value is not None or draw.chance(0.2):
            body[name] = written
    if draw.chance(0.7):
        body["currentURL"] = f"https://shop.example/ü/{device}"
    columns["current_url"] = body.get("currentURL", "")
    return body, columns


def event(draw, case, id_):
    """An event's JSON, its columns beside the header's, and its own URL."""
    ms = draw.instant_ms()
    body = {"id": id_, "timestamp": str(ms)}
    columns = {
        "event_id": id_, "event_timestamp": expect.time(ms), "insert_timestamp": expect.ANY, "event_params": expect.doc({}),
    }
    columns["event_name"] = "<nil>"
    if case:
        body[case], values = fields(draw, TYPES[case])
        columns["event_name"] = case[0].upper() + case[1:]
        columns["event_params"] = expect.doc(values)
    if draw.chance(0.3):
        body["currentURL"] = f"app://product/{id_}"
    return body, columns


def columns_of(head, columns, body):
    """A whole row: the event's own URL wins over the header's."""
    merged = {**head, **columns, **FOREIGN}
    merged["current_url"] = body.get("currentURL") or head["current_url"]
    return merged


def rows_of(columns, store):
    return [row("events", ["event_id"], dict(each), store) for each in columns]


class Events:
    """Messages of `grpc_event.tx`: a header and one to three events of one type."""

    queue = CLICKHOUSE
    ways = [
        ("not_json",), ("missing", "header"), ("wrong_type", "timestamp"), ("refused", "by_clickhouse"),
        ("not_utf8",), ("missing", "id"), ("wrong_type", "user"), ("refused", "by_postgres"),
        ("missing", "device"), ("missing", "events"), ("missing", "id_of_one"), ("missing", "timestamp"), ("wrong_type", "events"),
    ]

    def messages(self, seed, count):
        broken = broken_places(seed, self.queue, count)
        for n in range(count):
            draw = Draw(f"{seed}/{self.queue}/{n}")
            way = self.ways[broken.index(n) % len(self.ways)] if n in broken else None
            yield self.message(draw, n, way)

    def message(self, draw, n, way):
        case = draw.choice([*TYPES, None]) if n % 5 == 0 else draw.choice(list(TYPES))
        head, head_columns = header(draw, f"device-{n}")
        events, columns = [], []
        count = draw.randint(1, 3)
        if way:
            count = 3 if way[-1] == "id_of_one" else 1
        for at in range(count):
            body, own = event(draw, case, f"event-{n}-{at}-{draw.hex(8)}")
            events.append(body)
            columns.append(columns_of(head_columns, own, body))
        body = {"header": head, "events": events}
        message = Message(self.queue, n, body, columns[0]["event_name"])
        message.properties, _ = properties(draw, n, self.queue)
        # Postgres has no column for it.
        message.outcomes = [
            {"queue": CLICKHOUSE, "rows": rows_of(columns, "clickhouse")},
            {"queue": POSTGRES, "rows": rows_of(columns, "postgres")},
        ]
        if way:
            self.spoil(draw, message, way, body, columns)
        return message

    def spoil(self, draw, message, way, body, columns):
        message.kind = way[0]
        good = {
            outcome["queue"]: {"body": base64.b64encode(message.body).decode(), **copy.deepcopy(outcome)}
            for outcome in message.outcomes
        }
        if way[0] in ("not_json", "not_utf8"):
            message.body, reason = unreadable(draw, message.body, way[0])
            # Of text in another encoding the parser says where it is, not what.
            self.all_refuse(message, ["JSON"] if way[0] == "not_json" else [], good, None)
            return
        getattr(self, way[1])(draw, message, body, columns, good)

    def all_refuse(self, message, reason, good, then_columns, body=None):
        """Both consumers refuse; `then_columns`: what `error_events` gets, if anything."""
        message.outcomes = [
            error(queue, reason, good[queue], body, self.then(queue, reason, then_columns)) for queue in (CLICKHOUSE, POSTGRES)
        ]

    def then(self, queue, reason, columns):
        """What the consumer of refused events makes of it."""
        store, next_queue = ("clickhouse", CLICKHOUSE_ERRORS) if queue == CLICKHOUSE else ("postgres", ERRORS_ONLY)
        if columns is None:
            return error(next_queue, reason, None)
        key = ["event_id"] if isinstance(columns["event_id"], str) else ["device_id"]
        said = {"error_reason": {"~contains": reason}}
        return {"queue": next_queue, "rows": [row("error_events", key, {**columns, **said}, store)]}

    def header(self, draw, message, body, columns, good):
        empty = dict.fromkeys((column for column, _ in HEADER.values()), "") | {"bb_device_id": 0, "user_id": 0}
        url = body["events"][0].get("currentURL", "")
        del body["header"]
        message.body = encode(body)
        self.all_refuse(message, ["header"], good, {**columns[0], **empty, "current_url": url})

    def device(self, draw, message, body, columns, good):
        body["header"]["deviceId"] = ""
        message.body = encode(body)
        self.all_refuse(message, ["deviceId"], good, {**columns[0], "device_id": ""})

    def events(self, draw, message, body, columns, good):
        del body["events"]
        message.body = encode(body)
        bare = {
            **columns[0], "event_id": expect.ANY, "event_name": "<nil>", "event_timestamp": None,
            "event_params": expect.doc({}), "current_url": body["header"].get("currentURL", ""),
        }
        self.all_refuse(message, ["events"], good, bare)

    def id(self, draw, message, body, columns, good):
        del body["events"][0]["id"]
        message.body = encode(body)
        self.all_refuse(message, ["id"], good, {**columns[0], "event_id": expect.ANY})

    def timestamp(self, draw, message, body, columns, good):
        if message.kind == "missing":
            del body["events"][0]["timestamp"]
        else:
            body["events"][0]["timestamp"] = draw.choice(["yesterday", "2025-06-01T10:00:00Z", "-5"])
        message.body = encode(body)
        self.all_refuse(message, ["timestamp"], good, {**columns[0], "event_timestamp": None})

    def user(self, draw, message, body, columns, good):
        body["header"]["userId"] = "user seven"
        message.body = encode(body)
        self.all_refuse(message, ["JSON"], good, None)

    def id_of_one(self, draw, message, body, columns, good):
        """One event of three is refused; the other two are rows."""
        del body["events"][1]["id"]
        message.body = encode(body)
        alone = {"header": body["header"], "events": [body["events"][1]]}
        rest = [columns[0], columns[2]]
        self.all_refuse(message, ["id"], good, {**columns[1], "event_id": expect.ANY}, alone)
        for outcome, store in zip(message.outcomes, ("clickhouse", "postgres")):
            outcome["rows"] = rows_of(rest, store)
            # Only the refused one comes again.
            outcome["error"]["repaired"]["rows"] = rows_of([columns[1]], store)
            again = {"header": body["header"], "events": [{**body["events"][1], "id": columns[1]["event_id"]}]}
            outcome["error"]["repaired"]["body"] = base64.b64encode(encode(again)).decode()

    def by_clickhouse(self, draw, message, body, columns, good):
        text = f"https://shop.example/{refused_text(draw)}"
        body["events"][0]["currentURL"] = text
        columns[0]["current_url"] = text
        self.one_refuses(message, body, columns, CLICKHOUSE)

    def by_postgres(self, draw, message, body, columns, good):
        text = refused_text(draw)
        body["header"]["utmSource"] = text
        columns[0]["utm_source"] = text
        self.one_refuses(message, body, columns, POSTGRES)

    def one_refuses(self, message, body, columns, refusing):
        message.body = encode(body)
        message.outcomes = []
        for queue, store in ((CLICKHOUSE, "clickhouse"), (POSTGRES, "postgres")):
            taken = {"queue": queue, "rows": rows_of(columns, store)}
            if queue == refusing:
                again = {"body": base64.b64encode(message.body).decode(), **taken}
                taken = error(queue, refusal(store), again, None, self.then(queue, refusal(store), columns[0]))
            message.outcomes.append(taken)

"""Messages of logs: trace logs, affiliates' orders, votes, the scraper's logs, partners' activities.

Used by `plan`. One class for each family of messages.
"""

import json
import time

from .message import Family
from .values import KOLKATA, Draw, expect, utc


class TraceLog(Family):
    queue, table, key = "trace_log", "trace_log_events", ["uri"]
    wrong = [(["timeTaken"], "slow"), (["responseStatus"], {"code": 200}), (["onlyRequest"], "perhaps")]
    refuse = (["serviceName"], "service_name")

    def make(self, draw: Draw, n):
        now_ms = int(time.time() * 1000)
        headers = draw.choice([{"accept": ["*/*"], "x": "ü"}, "accept: */*", None])
        texts = {"requestBody": draw.choice([draw.text(), '{"q":1}', None]), "responseBody": draw.text()}
        body = {
            draw.choice(["hostName", "hostname"]): f"api-{n % 7}",
            "id": draw.uuid(),
            "serviceName": draw.word(),
            "timeTaken": draw.count(),
            "method": draw.choice(["GET", "POST"]),
            "uri": f"/v1/{draw.hex(6)}/{n}?q=ü",
            "headers": headers,
            "responseStatus": draw.choice([200, 404, 500]),
            "remoteAddress": draw.address(),
            "onlyRequest": draw.chance(0.5),
            **texts,
        }
        if draw.chance(0.5):
            body["timestamp"] = now_ms // 1000
        if headers is None and draw.chance(0.5):
            del body["headers"]
        columns = {
            "id": expect.ANY,
            "host_name": f"api-{n % 7}",
            "service_name": body["serviceName"],
            # The collector's or the sender's clock; both say now.
            "timestamp": expect.between(now_ms - 3_600_000, now_ms + 3_600_000),
            "time_taken": body["timeTaken"],
            "method": body["method"],
            "uri": body["uri"],
            "headers": {"~text_doc": headers} if isinstance(headers, dict) else headers or "",
            "response_status": body["responseStatus"],
            "remote_address": body["remoteAddress"],
            "only_request": int(body["onlyRequest"]),
            "request_body": texts["requestBody"] or "",
            "response_body": texts["responseBody"],
        }
        return body, columns, {}


class AffiliateOrder(Family):
    queue, table, key = "affiliate_orders_event_q", "affiliate_order_events", ["order_id", "platform"]
    missing = [["order_id"], ["created_on"], ["last_modified_on"]]
    wrong = [(["created_on"], "soon"), (["amount"], "much"), (["last_modified_on"], "0000-00-00 00:00:00")]
    refuse = (["referral_code"], "referral_code")

    def make(self, draw, n):
        times = {key: draw.log_time() for key in ("created_on", "last_modified_on", "delivered_on")}
        meta = draw.choice([draw.document(), {}, None])
        body = {
            "order_id": f"order-{n}-{draw.hex(4)}",
            "platform": draw.choice(["AJIO", "NYKAA", "amazon.in"]),
            "referral_code": draw.text(40),
            "meta": meta,
            **{key: written for key, (written, _) in times.items()},
            "amount": draw.count(),
            "status": draw.choice(["NEW", "DELIVERED", "रद्द"]),
        }
        columns = {key: body[key] for key in ("order_id", "platform", "referral_code", "amount", "status")}
        columns["meta"] = expect.doc(meta or {})
        columns.update((key, expect.time(ms)) for key, (_, ms) in times.items())
        if draw.chance(0.4):
            columns["delivered_on"] = None
            body["delivered_on"] = None
            if draw.chance(0.5):
                del body["delivered_on"]
        return body, columns, {}


class BigbossVote(Family):
    queue, table, key = "bigboss_votes_log_q", "bigboss_vote_log", ["identifier"]
    missing = [["createdat"], ["updatedat"]]
    wrong = [(["createdat"], "soon"), (["_sdc_sequence"], "first"), (["updatedat"], {"$date": 1})]
    refuse = (["vendorcode"], "vendorcode")

    def moment(self, draw):
        """With microseconds and a zone."""
        ms = draw.instant_ms()
        micros = f"{ms % 1000 * 1000 + draw.randint(0, 999):06}"
        if draw.chance(0.3):
            local = utc(ms).astimezone(KOLKATA)
            return f"{local:%Y-%m-%d %H:%M:%S}.{micros}+05:30", ms
        return draw.choice([f"{utc(ms):%Y-%m-%d %H:%M:%S}.{micros}+00:00", f"{utc(ms):%Y-%m-%dT%H:%M:%S}.{micros}Z"]), ms

    def make(self, draw, n):
        (created, created_ms), (updated, updated_ms) = self.moment(draw), self.moment(draw)
        stamps = {f"_sdc_{what}_at": f"2025-06-0{n % 9 + 1} 17:00:00.000000+00:00" for what in ("received", "batched", "extracted")}
        texts = {key: draw.text(50) for key in ("meta", "country", "key", "vendorcode", "contestantid", "languages")}
        body = {
            **texts,
            **stamps,
            "_id": draw.hex(24),
            "identifier": f"voter-{n}",
            "_sdc_table_version": draw.count(),
            "_sdc_sequence": 1_700_000_000_000_123_456 + n,
            "createdat": created,
            "updatedat": updated,
        }
        columns = {
            **texts,
            "id": body["_id"],
            "identifier": body["identifier"],
            "createdat": expect.time(created_ms),
            "updatedat": expect.time(updated_ms),
            **{f"sdc_{key}": body[f"_sdc_{key}"] for key in ("received_at", "batched_at", "extracted_at", "table_version", "sequence")},
        }
        if draw.chance(0.2):
            del body["_id"]
            columns["id"] = expect.ANY
        return body, columns, {}


class BeatLog(Family):
    """The scraper's logs: keys are columns. `kinds` says what each holds."""

    key = ["event_id"]

    def __init__(self, queue, table, kinds, refuse, wrong):
        self.queue, self.table, self.kinds = queue, table, kinds
        self.refuse = ([refuse], refuse)
        self.wrong = [([key], value) for key, value in wrong.items()]
        self.missing = [[key] for key in ("event_timestamp", *kinds, "event_id")]

    def make(self, draw, n):
        body, columns = {}, {}
        for column, kind in self.kinds.items():
            body[column], columns[column] = getattr(self, kind)(draw)
        written, ms = draw.log_time()
        body.update(event_id=f"{self.queue}-{n}-{draw.hex(6)}", event_timestamp=written)
        columns.update(event_id=body["event_id"], event_timestamp=expect.time(ms), insert_timestamp=expect.ANY)
        return body, columns, {}

    def text(self, draw):
        value = draw.choice([draw.word(), draw.text(), None])
        return value, value or ""

    def text_or_null(self, draw):
        value = draw.choice([draw.text(), None])
        return value, value

    def time_or_null(self, draw):
        if draw.chance(0.3):
            return None, None
        written, ms = draw.log_time()
        return written, expect.time(ms)

    def document(self, draw):
        if draw.chance(0.15):
            return draw.choice([None, [], "", {}]), expect.doc({})
        value = draw.document()
        return value, expect.doc(value)

    def float(self, draw):
        value = draw.choice([0.5, -0.25, 1, 0.1, 0.30000000000000004])
        return value, value

    def unsigned(self, draw):
        value = draw.choice([2**64 - 1, 2**63, 7, draw.count()])
        return (str(value) if draw.chance(0.5) else value), value

    def int_or_null(self, draw):
        value = draw.choice([None, 0, 1, -3, 99])
        return value, value


def beat_logs():
    post = {
        "source": "text", "platform": "text", "profile_id": "text", "shortcode": "text", "handle": "text_or_null",
        "metrics": "document", "dimensions": "document", "publish_time": "time_or_null",
    }
    profile = {key: kind for key, kind in post.items() if key not in ("shortcode", "publish_time")}
    relationship = {
        key: "text" for key in ("source", "relationship_type", "platform", "source_profile_id", "target_profile_id")
    } | {f"{side}_{what}": "document" for side in ("source", "target") for what in ("metrics", "dimensions")}
    scrape = {
        "scl_id": "unsigned", "flow": "text", "platform": "text", "params": "document", "status": "text",
        "priority": "int_or_null", "reason": "text_or_null", "picked_at": "time_or_null", "expires_at": "time_or_null",
    }
    order = {key: "text" for key in ("source", "platform", "platform_order_id", "store")}
    order |= {"metrics": "document", "dimensions": "document"}
    sentiment = {key: "text" for key in ("source", "platform", "shortcode", "comment_id", "comment", "sentiment")}
    sentiment |= {"score": "float", "metrics": "document", "dimensions": "document"}
    activity = {key: "text" for key in ("source", "activity_type", "platform", "actor_profile_id", "shortcode")}
    activity |= {"metrics": "document", "dimensions": "document", "publish_time": "time_or_null"}
    late = {"event_timestamp": "yesterday"}
    for queue in ("post_log_events_q", "post_log_events_q_bkp"):
        yield BeatLog(queue, "post_log_events", post, "source", {**late, "publish_time": "2023-13-01 00:00:00", "handle": {}})
    yield BeatLog("sentiment_log_events_q", "sentiment_log_events", sentiment, "comment", {"score": "high", **late})
    yield BeatLog("post_activity_log_events_q", "post_activity_log_events", activity, "source", {"event_timestamp": None})
    yield BeatLog("profile_log_events_q", "profile_log_events", profile, "source", {"platform": ["x"], **late})
    yield BeatLog(
        "profile_relationship_log_events_q", "profile_relationship_log_events", relationship, "source", {**late, "platform": {}}
    )
    yield BeatLog(
        "scrape_request_log_events_q", "scrape_request_log_events", scrape, "flow",
        {"scl_id": "many", "priority": "urgent", "picked_at": "soon", **late},
    )
    yield BeatLog("order_log_events_q", "order_log_events", order, "store", {**late, "store": {"id": 1}})


class PartnerActivity(Family):
    queue, table, key = "activity_tracker_q", "partner_activity_log_events", ["event_id"]
    missing = [
        [key]
        for key in (
            "activityMeta", "eventTimestamp", "partnerId", "activityId", "eventId", "moduleName", "activityName",
            "accountId", "incrementCount",
        )
    ]
    wrong = [(["partnerId"], "partner"), (["eventTimestamp"], "soon"), (["activityId"], {"id": 1})]
    refuse = (["moduleName"], "module_name")

    def make(self, draw, n):
        ms = draw.second_ms()
        local = utc(ms).astimezone(KOLKATA)
        meta = draw.choice([draw.document(), {}])
        written = json.dumps(meta, ensure_ascii=draw.chance(0.5))
        if draw.chance(0.1):
            meta, written = {}, draw.choice(["no json", "", "{"])
        body = {
            "eventId": f"activity-{n}-{draw.hex(6)}",
            "activityName": draw.word(),
            "moduleName": draw.text(40),
            "incrementCount": draw.whole(),
            "partnerId": draw.count(),
            "accountId": draw.count(),
            "activityId": draw.choice([None, draw.count()]),
            "activityMeta": written,
            "eventTimestamp": f"{local:%Y-%m-%d %H:%M:%S}",
        }
        columns = {
            "event_id": body["eventId"],
            "module_name": body["moduleName"],
            "activity_name": body["activityName"],
            "increment_count": body["incrementCount"],
            "partner_id": body["partnerId"],
            "account_id": body["accountId"],
            "activity_id": body["activityId"],
            "activity_meta": expect.doc(meta),
            "event_timestamp": expect.time(ms),
            "insert_timestamp": expect.ANY,
        }
        return body, columns, {}


def families():
    return [TraceLog(), AffiliateOrder(), BigbossVote(), *beat_logs(), PartnerActivity()]

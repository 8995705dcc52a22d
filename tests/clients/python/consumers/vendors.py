"""Messages of partners into tables: Branch, Shopify.

Used by `plan`.
"""

from .message import Family
from .values import expect

# Rows of messages that the collector did not take itself.
FOREIGN = {"ingest_host": "", "ingest_seq": 0, "ingest_index": expect.ANY}


class Branch(Family):
    queue, table, key = "branch_event_q", "branch_events", ["id"]
    missing = [["id"], ["name"], ["timestamp"]]
    wrong = [(["timestamp"], "soon"), (["name"], {}), (["id"], [])]
    refuse = (["origin"], "origin")
    NAMES = ["INSTALL", "OPEN", "CLICK", "REINSTALL", "PAGEVIEW", "WEB_SESSION_START", "PURCHASE", "VIEW_ITEM"]

    def route_key(self, body):
        return body["name"]

    def make(self, draw, n):
        ms, event_ms, touch_ms = draw.instant_ms(), draw.instant_ms(), draw.instant_ms()
        ints = [
            "di_match_click_token", "seconds_from_install_to_event", "seconds_from_last_attributed_touch_to_event",
            "minutes_from_last_attributed_touch_to_event", "hours_from_last_attributed_touch_to_event",
            "days_from_last_attributed_touch_to_event",
        ]
        flags = ["deep_linked", "attributed", "existing_user", "first_event_for_user"]
        data = {"transaction_id": f"t-{n}", "revenue": draw.choice([12.5, 0.1, 99, 1e-7]), "currency": "INR", "big": 2**53 + n}
        user = {
            "platform": "ANDROID_APP", "aaid": draw.uuid(), "geo_region_en": "Maharashtra", "geo_city_en": draw.text(20),
            "geo_country_en": "India", "screen_width": 1080,
        }
        campaign = draw.choice([" Big  Sale ", "DIWALI 2025", "ÄÖ ü", ""])
        touch = {
            "~campaign": campaign, "~channel": "sms", "~feature": "paid", "$marketing_title": draw.text(60),
            "+url": "https://x.app.link/ü?a=1", "$android_deeplink_path": "p/1", "$android_url": "https://a", "$ios_url": "https://i",
            "~tags": ["a", "b"], "~id": 2**53 + 1,
        }
        if draw.chance(0.2):
            spelled = {"~": "tilde_", "$": "dollar_", "+": "plus_"}
            touch = {spelled[key[0]] + key[1:]: value for key, value in touch.items()}
        body = {
            "id": f"branch-{n}-{draw.hex(8)}",
            "name": draw.choice(self.NAMES),
            "timestamp": ms,
            "event_timestamp": event_ms,
            "datasource": "API",
            "origin": draw.text(30),
            **{key: draw.whole() for key in ints},
            **{key: draw.chance(0.5) for key in flags},
            "last_attributed_touch_timestamp": touch_ms,
            "last_attributed_touch_type": "CLICK",
            "event_data": data,
            "user_data": user,
            "last_attributed_touch_data": touch,
            "install_activity": draw.choice([draw.document(1), {}]),
            "custom_data": draw.document(1),
            "content_items": [{"$sku": f"s{n}", "$price": 12.5, "$quantity": 2**53 + 1}, {"$sku": "ü", "x": None}],
            "reengagement_activity": {},
        }
        columns = {
            **{key: body[key] for key in ("id", "name", "datasource", "origin", "last_attributed_touch_type", *ints)},
            **{key: int(body[key]) for key in flags},
            "timestamp": expect.time(ms),
            "insert_timestamp": expect.ANY,
            "event_timestamp": expect.time(event_ms),
            "last_attributed_touch_timestamp": expect.time(touch_ms),
            "transaction_id": data["transaction_id"],
            "revenue": data["revenue"],
            **{key: user[key] for key in ("platform", "aaid", "geo_region_en", "geo_city_en", "geo_country_en")},
            "campaign": campaign,
            "campaign_code": campaign.lower().replace(" ", ""),
            "channel": "sms",
            "medium": "paid",
            "marketing_title": next(value for key, value in touch.items() if key.endswith("marketing_title")),
            "url": "https://x.app.link/ü?a=1",
            "android_deeplink_path": "p/1",
            "android_url": "https://a",
            "ios_url": "https://i",
            **{
                key: expect.doc(body[key])
                for key in ("event_data", "user_data", "last_attributed_touch_data", "install_activity", "custom_data",
                            "content_items", "reengagement_activity")
            },
            "complete_event": expect.doc(body),
            **FOREIGN,
        }
        self.vary(draw, body, columns)
        return body, columns, {}

    def vary(self, draw, body, columns):
        """Parts that are of a wrong type are left out of their columns alone."""
        if draw.chance(0.2):
            body["attributed"], columns["attributed"] = "perhaps", 0
            body["custom_data"], columns["custom_data"] = "none", expect.doc({})
            body["days_from_last_attributed_touch_to_event"] = {"n": 1}
            columns["days_from_last_attributed_touch_to_event"] = 0
        if draw.chance(0.2):
            del body["content_items"], body["last_attributed_touch_timestamp"]
            columns["content_items"] = expect.doc([])
            columns["last_attributed_touch_timestamp"] = None


class Shopify(Family):
    queue, table, key = "shopify_events_q", "shopify_events", ["store_url"]
    missing = [["eventTime"]]
    wrong = [(["eventTime"], "soon"), (["eventData"], ["x"]), (["eventName"], {}), (["storeUrl"], 5)]
    refuse = (["eventName"], "event_name")

    def make(self, draw, n):
        ms = draw.instant_ms()
        data = {"id": 2**53 + n, "line_items": [{"sku": "a", "price": "12.50"}], **draw.document()}
        body = {
            "storeUrl": f"https://shop-{n}-{draw.hex(4)}.example",
            "eventName": draw.choice(["orders/create", "product viewed", "खरीद"]),
            "eventTime": ms,
            "eventData": data,
        }
        columns = {
            "id": expect.ANY,
            "event_name": body["eventName"],
            "store_url": body["storeUrl"],
            "event_timestamp": expect.time(ms),
            "insert_timestamp": expect.ANY,
            "data": expect.doc(data),
            **FOREIGN,
        }
        return body, columns, {}

"""Clicks on short links.

Used by `plan`.
"""

from .events import HEADER
from .message import Family
from .values import AGENTS, agent_columns, expect
from .vendors import FOREIGN


class Click(Family):
    """Clicks, into `events` as `ClickEvent`; some are bots' by their agent, address or number."""

    queue, table, key = "clickhouse_click_event_q", "events", ["event_id"]
    missing = [["timestamp"]]
    wrong = [(["timestamp"], "soon"), (["headers"], "none"), (["url"], 5), (["clientIp"], {"v4": 1})]
    refuse = (["url"], "current_url")
    # The test's configuration names these as a bot's address and referer.
    BOT_ADDRESS, BOT_REFERER = "203.0.113.66", "https://preview.example/card"
    # One address clicks more often than a person does.
    EAGER_ADDRESS, PEOPLE_PER_DAY = "198.51.100.7", 25

    def make(self, draw, n):
        agent, parts = draw.choice([*AGENTS, ("curl/8.4.0", {"bot": 1, "mobile": 0})])
        ms = draw.second_ms() if draw.chance(0.8) else draw.instant_ms()
        address, referer, bot = f"100.64.{n // 20 % 250}.{n // 5000 + 1}", "https://www.instagram.com/", bool(parts["bot"])
        kind = draw.randint(0, 19)
        if kind == 0:
            address, bot = self.BOT_ADDRESS, True
        elif kind == 1:
            referer, bot = self.BOT_REFERER, True
        elif n % 8 == 3 and not bot:
            address, bot = self.EAGER_ADDRESS, expect.ANY
        body = {
            "eventId": f"click-{n}-{draw.hex(8)}",
            "headers": {"User-Agent": [agent], "Referer": [referer], "X-Forwarded-For": [address, "10.0.0.1"]},
            "clientIp": address,
            "userAgent": agent,
            "url": f"https://l.example/ü/{n}",
            "deepLink": draw.text(60),
            "timestamp": ms if ms % 1000 else ms // 1000,
        }
        known = agent_columns(parts)
        said = {
            "ua": agent, "mozilla": known["mozilla"], "platform": known["platform"], "os": known["os"],
            "osInfo": expect.partial({"FullName": known["os_full_name"], "Name": known["os_name"], "Version": known["os_version"]}),
            "localization": known["localization"], "model": known["model"], "browserName": known["browser_name"],
            "browserVersion": known["browser_version"], "bot": bot, "mobile": bool(parts["mobile"]),
        }
        columns = {
            **dict.fromkeys((column for column, _ in HEADER.values()), ""),
            "bb_device_id": 0,
            "user_id": 0,
            "event_id": body["eventId"],
            "event_name": "ClickEvent",
            "event_timestamp": expect.time(ms),
            "insert_timestamp": expect.ANY,
            "current_url": body["url"],
            # The object itself, so that a text that is set later is in it, too.
            "event_params": {"~doc": body, "~with": {"userAgentJson": expect.partial(said)}},
            **FOREIGN,
        }
        return body, columns, {}

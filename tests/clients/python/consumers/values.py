"""Values as producers in the field send them, and as they end in tables.

Used by the modules that make messages. A `Draw` gives the same values for the same
seed. Expected values are plain JSON, or one of the forms that `expect` names.
"""

import datetime
import random

TEXTS = [
    "banner",
    "",
    "Kajal – 12h स्मज-प्रूफ",
    "口红 #3 \"ruby\"",
    "a'b\\c/d",
    "line one\nline two\r\n\ttab\u2028\u007f",
    "🛍️👩🏽‍🦱",
    "مرحبا بالعالم",
    "Zalgo e\u0301\u0323",
    "null",
    "NULL \\N",
    "{\"not\":\"json\"}",
    "</script>&amp;",
    "2024-02-29T23:59:59.123+05:30",
    "1234567890123456789",
    "1e400",
    "  spaces  ",
    "%2E a.b.c ${x} {{y}}",
    "long " + "ü" * 700,
]
BIG = [2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1, 1234567890123456789, -7_000_000_000]
FLOATS = [499.99, 0.1, -2.5, 1e-7, 0.30000000000000004, 12.0, 123456.789, 1.7976931348623157e308]
KEYS = ["model", "bucket.label", "ключ", "a b", "x\"y", "🗝", "deep.er.key", "0", "camelCase", "kebab-case"]

# Some day of 2025; messages are of the twenty days before it, at all hours.
BASE_MS = 1_750_000_000_000
DAY_MS = 24 * 3600 * 1000
KOLKATA = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


class expect:
    """Forms of expected values beside plain JSON."""

    ANY = {"~any": True}

    @staticmethod
    def time(ms):
        """An instant."""
        return {"~ms": ms}

    @staticmethod
    def between(first_ms, last_ms):
        """A time that the collector takes from its own clock."""
        return {"~between": [first_ms, last_ms]}

    @staticmethod
    def doc(value):
        """A JSON document in a column for such."""
        return {"~doc": value}

    @staticmethod
    def partial(value):
        """Within a document: an object that has at least these keys."""
        return {"~partial": value}


def utc(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)


class Draw(random.Random):
    """Random values of a kind."""

    def text(self, chars=None):
        return self.choice(TEXTS)[:chars]

    def word(self):
        return self.choice(["instagram", "YOUTUBE", "shop", "beauty", "collab", "मेकअप", "reel", "gold-tier"])

    def hex(self, digits=32):
        return f"{self.getrandbits(4 * digits):0{digits}x}"

    def uuid(self):
        text = self.hex()
        return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])

    def whole(self):
        """Mostly small, often where doubles have gaps."""
        return self.choice(BIG) if self.random() < 0.3 else self.randint(-5, 100_000)

    def count(self):
        return 2**53 + self.randint(1, 99) if self.random() < 0.2 else self.randint(0, 1_000_000)

    def chance(self, share):
        return self.random() < share

    def instant_ms(self):
        """Half of them in the hours that a 12-hour clock cannot read."""
        day = BASE_MS - BASE_MS % DAY_MS - self.randint(1, 20) * DAY_MS
        hour = self.randint(13, 23) if self.chance(0.5) else self.randint(0, 12)
        return day + hour * 3_600_000 + self.randint(0, 3_599_999)

    def second_ms(self):
        ms = self.instant_ms()
        return ms - ms % 1000

    def address(self):
        return f"100.{self.randint(64, 127)}.{self.randint(0, 255)}.{self.randint(1, 254)}"

    def any_value(self, depth):
        kind = self.randint(0, 9)
        if kind < 3:
            return self.whole()
        if kind < 5:
            return self.text()
        if kind == 5:
            return self.choice(FLOATS)
        if kind == 6:
            return self.choice([True, False, None])
        if kind == 7:
            return self.choice([[1, 2, 3], ["a", "ü"], [], [2**53 + 1], [{"id": 2**53 + 1, "s": "x"}, {"id": 2}]])
        return self.document(depth - 1) if depth > 0 else self.text()

    def document(self, depth=2):
        """A JSON object with keys and values from the edges."""
        keys = self.sample(KEYS, self.randint(1, 4)) + ["likes"]
        found = {key: self.any_value(depth) for key in keys}
        if self.chance(0.3):
            # Under a key of their own: ClickHouse gives the lists of one key and one insert
            # one type, and whole numbers beside fractions are doubles there.
            found["ratios"] = [0.5, 2.25, 1e-7]
        return found

    def log_time(self):
        """As loggers write times, with what they mean: most as text in UTC."""
        ms = self.second_ms()
        if self.chance(0.1):
            return ms // 1000, ms
        if self.chance(0.1):
            return ms + 7, ms + 7
        return f"{utc(ms):%Y-%m-%d %H:%M:%S}", ms


# Agents whose parts are beyond dispute; libraries differ in the rest.
AGENT_COLUMNS = [
    "mozilla", "platform", "os", "os_full_name", "os_name", "os_version", "localization", "model", "browser_name",
    "browser_version", "bot", "mobile",
]
AGENTS = [
    (
        "Mozilla/5.0 (Linux; Android 13; SM-G991B Build/TP1A.220624.014) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/112.0.0.0 Mobile Safari/537.36",
        {
            "mozilla": "5.0", "platform": "Linux", "os": "Android 13", "os_full_name": "Android 13",
            "os_name": "Android", "os_version": "13", "localization": "", "model": "SM-G991B",
            "browser_name": "Chrome", "browser_version": "112.0.0.0", "bot": 0, "mobile": 1,
        },
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 16_4 like Mac OS X; en-us) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/16.4 Mobile/15E148 Safari/604.1",
        {
            "mozilla": "5.0", "platform": "iPhone", "localization": "en-us", "model": "iPhone",
            "browser_name": "Safari", "browser_version": "16.4", "bot": 0, "mobile": 1,
        },
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
        {
            "mozilla": "5.0", "localization": "", "model": "", "browser_name": "Chrome",
            "browser_version": "120.0.0.0", "bot": 0, "mobile": 0,
        },
    ),
    (
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        {"mozilla": "5.0", "bot": 1, "mobile": 0},
    ),
    ("", {**dict.fromkeys(AGENT_COLUMNS, ""), "bot": 0, "mobile": 0}),
]


def agent_columns(parts):
    """The columns of an agent; what is not known of it may be anything."""
    return {column: parts.get(column, expect.ANY) for column in AGENT_COLUMNS}

"""A message of a foreign producer, what must become of it, and how one is broken.

Used by the modules that make messages, by `broker` and by the judges. One message is
one line of the record:

    queue, n, exchange, key, kind, properties, body (base64), outcomes

`kind` is `good`, `not_json`, `not_utf8`, `missing`, `wrong_type` or `refused`. There is
an outcome for each consumer that gets the message: its `queue`, and

    rows    what it writes: `store`, `table`, `key` (columns that identify the row), `row`
    call    what it posts to an API: `path`, `account`, `body`, `headers`
    error   the error queue, parts of the reason, and the body if it is a part of the
            message; with `repaired`, the outcome once the cause is mended, and `then`,
            what the error queue's own consumer makes of it, where it has one
    (none)  it takes the message and does nothing
"""

import base64
import copy
import json
import time

from .topology import CONSTRAINT, REFUSED, ROUTES
from .values import Draw

APPS = ["identity", "beat-scraper", "coffee", "affiliate-sync", "link-redirector", "event-grpc"]
# Names that handlers read or pass on, in the case in which senders differ.
BB_HEADERS = {
    "x-bb-requestid": ["x-bb-requestid", "X-BB-RequestId"],
    "x-bb-os": ["x-bb-os", "X-Bb-Os", "X-BB-OS"],
    "x-bb-clientid": ["x-bb-clientid", "X-Bb-Clientid"],
    "x-bb-channelid": ["x-bb-channelid", "X-BB-ChannelID"],
    "x-bb-version-name": ["x-bb-version-name", "X-Bb-Version-Name"],
}
OTHER_HEADERS = {
    "Authorization": "Basic Zm9yZWlnbjpzZWNyZXQ=",
    "accept-language": "hi-IN,hi;q=0.9",
    "x-apollo-operation-name": "CreateAccount",
    "attempt": 2,
    "sampled": True,
    "trace": {"span": "a1", "flags": [1, 2]},
    "x-death-of-another": [{"queue": "elsewhere", "count": 3}],
}


class Message:
    """One message; `outcomes` is filled by its maker."""

    def __init__(self, queue, n, body, key=None):
        self.queue, self.n, self.kind = queue, n, "good"
        self.exchange, self.key, _ = ROUTES[queue]
        self.key = key or self.key
        self.body = body if isinstance(body, bytes) else encode(body)
        self.properties = {}
        self.outcomes = []

    def line(self):
        fields = {**vars(self), "body": base64.b64encode(self.body).decode()}
        return json.dumps(fields, ensure_ascii=False)


def encode(value):
    return json.dumps(value, ensure_ascii=False).encode()


def read_record(paths):
    """The messages of records with a comma between, each as a dict; the body as bytes."""
    for path in paths.split(","):
        with open(path, encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                entry["body"] = base64.b64decode(entry["body"])
                yield entry


def header_values(draw, values):
    """Headers with this meaning, as some sender writes them: any case, text or list."""
    headers = {}
    for name, value in values.items():
        spelled = draw.choice(BB_HEADERS.get(name, [name, name.title(), name.upper()]))
        headers[spelled] = [value, "second"] if draw.chance(0.3) else value
    return headers


def properties(draw, n, queue, bb=None):
    """AMQP properties as foreign producers set them; `bb` are headers that matter."""
    bb = dict(bb or {})
    if draw.chance(0.5):
        bb.setdefault("x-bb-requestid", draw.uuid())
        bb.setdefault("x-bb-os", draw.choice(["android", "ios", "web"]))
    if draw.chance(0.2):
        bb.setdefault("x-bb-clientid", "client-7")
        bb.setdefault("x-bb-version-name", "4.12.0")
    headers = header_values(draw, bb)
    for name in draw.sample(sorted(OTHER_HEADERS), draw.randint(0, 3)):
        headers[name] = OTHER_HEADERS[name]
    found = {"app_id": draw.choice(APPS)} if draw.chance(0.5) else {}
    if headers or draw.chance(0.5):
        found["headers"] = headers
    if draw.chance(0.6):
        found["message_id"] = draw.choice([draw.uuid(), f"{queue}-{n}"])
    kinds = ["application/json", "application/json", "application/json; charset=utf-8", "text/plain", None]
    kind = draw.choice(kinds)
    if kind:
        found["content_type"] = kind
    if draw.chance(0.4):
        found["timestamp"] = int(time.time())
    if draw.chance(0.1):
        found.update(type="event", correlation_id=draw.hex(8))
    return found, bb


def row(table, key, columns, store="clickhouse"):
    return {"store": store, "table": table, "key": list(key), "row": columns}


def error(queue, reason, repaired, body=None, then=None):
    """`reason`: its parts. `body`: the one in the error queue, if not the message's."""
    found = {"queue": ROUTES[queue][2], "reason": reason, "repaired": repaired}
    if body is not None:
        found["events"] = body
    if then is not None:
        found["then"] = then
    return {"queue": queue, "error": found}


def refusal(store="clickhouse"):
    """Parts of the reason when a table's constraint refuses."""
    return ["469" if store == "clickhouse" else "23514", CONSTRAINT]


def refused_text(draw):
    return f"{REFUSED} {draw.word()} {draw.hex(6)}"


def broken_places(seed, queue, count):
    """Which of a queue's messages are broken: one of a hundred, at least one."""
    draw = Draw(f"{seed}/{queue}/broken")
    return sorted(draw.sample(range(count), max(1, count // 100)))


def unreadable(draw, body, kind):
    """The body as no reader can take it, and a part of the reason."""
    if kind == "not_utf8":
        # In the middle of a text, as a cut or wrongly encoded name is.
        return b'{"note":"caf\xe9 \xff\xfe",' + body[1:], ["UTF-8"]
    text = body.decode()
    cut = [text[: len(text) // 2].encode(), body + b"}", b"[]", b"", b'"text"', body.replace(b":", b"=")]
    return draw.choice(cut), ["JSON"]


class Family:
    """Messages of one queue into one table: subclasses say how."""

    queue = table = key = None
    # Keys that must be there, and values of a wrong type, as paths into the body.
    missing = []
    wrong = []
    # Where the refused text goes: path in the body, and the column.
    refuse = None

    def make(self, draw, n):
        """Body, row, and the AMQP headers that matter."""
        raise NotImplementedError

    def route_key(self, body):
        return None

    def ways(self):
        """How this queue's messages are broken, in turn."""
        ways = [("not_json",), ("not_utf8",), ("refused",)]
        ways += [("missing", path) for path in self.missing]
        ways += [("wrong_type", *wrong) for wrong in self.wrong]
        # The kinds in turn, so that a few messages have all of them.
        kinds = [way[0] for way in ways]
        rank = [kinds[:at].count(kind) for at, kind in enumerate(kinds)]
        return [way for _, way in sorted(zip(rank, ways), key=lambda ranked: ranked[0])]

    def message(self, seed, n, way=None):
        draw = Draw(f"{seed}/{self.queue}/{n}")
        body, columns, bb = self.make(draw, n)
        if way and way[0] == "refused":
            text = refused_text(draw)
            place(body, self.refuse[0], text)
            columns[self.refuse[1]] = text
        message = Message(self.queue, n, body, self.route_key(body))
        message.properties, _ = properties(draw, n, self.queue, bb)
        good = {"queue": self.queue}
        if columns is not None:
            good["rows"] = [row(self.table, self.key, columns)]
        if not way:
            message.outcomes = [good]
            return message
        message.kind = way[0]
        repaired = {"body": base64.b64encode(message.body).decode(), **copy.deepcopy(good)}
        if way[0] == "refused":
            reason = refusal()
        elif way[0] == "missing":
            place(body, way[1], None, drop=True)
            message.body, reason = encode(body), [way[1][-1]]
        elif way[0] == "wrong_type":
            place(body, way[1], way[2])
            message.body, reason = encode(body), [way[1][-1]]
        else:
            message.body, reason = unreadable(draw, message.body, way[0])
        message.outcomes = [error(self.queue, reason, repaired)]
        return message

    def messages(self, seed, count):
        broken = broken_places(seed, self.queue, count)
        ways = self.ways()
        for n in range(count):
            way = ways[broken.index(n) % len(ways)] if n in broken else None
            yield self.message(seed, n, way)


def place(body, path, value, drop=False):
    """Sets or drops a value in nested objects."""
    *parents, last = path
    for key in parents:
        body = body[key]
    if drop:
        del body[last]
    else:
        body[last] = value

#!/usr/bin/env python3
"""ClickHouse's engine behind ClickHouse's HTTP interface, for tests and trials.

What for:     machines without a `clickhouse` binary. The engine is the real one
              (the wheel chdb-core); this file is only the door in front of it.
Called by:    clickhouse_server.sh, which prefers a real server when there is one.
Guarantees:   an answered INSERT or DDL is on DATADIR and survives kill -9 of this
              process; errors carry the server's HTTP status, the header
              X-ClickHouse-Exception-Code and its text; each request has its own
              settings and current database, as without a session_id on a server;
              requests run side by side. It answers only on 127.0.0.1, and its
              first answer comes after the database exists.
Leaves out:   sessions (session_id), roles and quotas, external tables,
              `compress=1` answers (Accept-Encoding lz4 and gzip work), checksums
              of compressed input are not verified, zstd.

Faults on request, without a password (tests only):
    POST /__fault?mode=off | slow:MS | hang | readonly | error:CODE
                       | drop-before | drop-after
                  &only=insert|other|all   which queries (default all; readonly: insert)
                  &count=N                 how many queries, then off
`drop-after` runs the query and closes the connection unanswered; `drop-before`
closes it without running anything; `hang` waits until the mode changes, and runs it
then; `readonly` answers as a table that lost its
keeper (code 242). GET /__fault tells the mode and how often it struck.
"""

import argparse
import asyncio
import base64
import concurrent.futures
import gzip
import itertools
import json
import os
import re
import signal
import ssl
import struct
import time
import uuid

import lz4.block
import lz4.frame
from aiohttp import web
from chdb import session

# The server's table from error names to HTTP statuses; all others are 500.
STATUS = {
    401: "REQUIRED_PASSWORD",
    403: "UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED SET_NON_GRANTED_ROLE ACCESS_DENIED",
    400: "BAD_ARGUMENTS CANNOT_COMPILE_REGEXP CANNOT_PARSE_TEXT CANNOT_PARSE_ESCAPE_SEQUENCE"
         " CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE CANNOT_PARSE_DATETIME CANNOT_PARSE_NUMBER"
         " CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING CANNOT_PARSE_IPV4 CANNOT_PARSE_IPV6"
         " CANNOT_PARSE_INPUT_ASSERTION_FAILED CANNOT_PARSE_UUID DUPLICATE_COLUMN ILLEGAL_COLUMN"
         " UNKNOWN_ELEMENT_IN_AST UNKNOWN_TYPE_OF_AST_NODE THERE_IS_NO_COLUMN TOO_DEEP_AST"
         " TOO_BIG_AST UNEXPECTED_AST_STRUCTURE SYNTAX_ERROR INCORRECT_DATA TYPE_MISMATCH"
         " VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    404: "UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE"
         " UNKNOWN_DATABASE UNKNOWN_SETTING UNKNOWN_DIRECTION_OF_SORTING"
         " UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT UNKNOWN_DATABASE_ENGINE"
         " UNKNOWN_TYPE_OF_QUERY UNKNOWN_ROLE",
    413: "QUERY_IS_TOO_LARGE",
    501: "NOT_IMPLEMENTED",
    503: "SOCKET_TIMEOUT CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
    411: "HTTP_LENGTH_REQUIRED",
    408: "TIMEOUT_EXCEEDED",
    415: "UNSUPPORTED_MEDIA_TYPE",
}
STATUS_OF = {name: status for status, names in STATUS.items() for name in names.split()}

# Formats of inserts whose rows are no text.
BINARY = {"Native", "RowBinary", "RowBinaryWithDefaults", "RowBinaryWithNames", "RowBinaryWithNamesAndTypes"}

# URL parameters that speak to the HTTP interface; the rest are settings.
NOT_SETTINGS = {
    "query", "database", "default_format", "user", "password", "quota_key", "query_id",
    "session_id", "session_timeout", "session_check", "compress", "decompress", "role",
    "stacktrace", "buffer_size", "wait_end_of_query", "close_session",
    "client_protocol_version",
}

TOKEN = re.compile(
    rb"(?P<space>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)"
    rb"|(?P<quoted>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`\\]|\\.|``)*`)"
    rb"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    rb"|(?P<other>[^\s])",
    re.S,
)


class DbError(Exception):
    """An error as the server would tell it."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code, self.text = code, text

    @classmethod
    def of(cls, error):
        text = str(error)
        found = re.search(r"Code: (\d+)\. ", text)
        if not found:
            return cls(1002, f"{text or type(error).__name__} (UNKNOWN_EXCEPTION)")
        code = found.group(1)
        # The engine wraps some errors in a second copy of themselves, or in a
        # sentence of the wheel's; the server tells them once.
        body = text[text.rindex(f"Code: {code}. DB::Exception: "):]
        body = body.removeprefix(f"Code: {code}. DB::Exception: ").rstrip()
        last = re.match(r"(?s)(.*?\([A-Z][A-Z0-9_]+\))( \(version [^()]*(\([^()]*\))?\).*)?$", body)
        return cls(int(code), last.group(1) if last else body)


def tokens(sql):
    """(kind, bytes, depth, start, end) of each token outside of comments."""
    depth = 0
    for m in TOKEN.finditer(sql):
        kind, text = m.lastgroup, m.group()
        if kind == "space":
            continue
        if text in (b"(", b"[", b"{"):
            depth += 1
        elif text in (b")", b"]", b"}"):
            depth -= 1
        yield kind, text, depth, m.start(), m.end()


def split_insert(sql):
    """`INSERT … FORMAT X <data>` as (statement, format, data); None for all else."""
    stream = tokens(sql)
    first = next(stream, None)
    if first is None or first[1].upper() != b"INSERT":
        return None
    for kind, text, depth, start, end in stream:
        if kind != "word" or depth:
            continue
        word = text.upper()
        if word in (b"SELECT", b"WITH"):
            return None
        if word == b"VALUES":
            return sql[:start].decode(), "Values", sql[end:]
        if word == b"FORMAT":
            kind, name, _, _, end = next(stream, (None, b"", 0, 0, len(sql)))
            data = re.compile(rb"[ \t\f]*\r?\n?").match(sql, end).end()
            return sql[:start].decode(), name.decode(), sql[data:]
    return None


def check_single(sql):
    """A server takes one statement per request. Returns its FORMAT, if it names one."""
    ended, named, before = False, None, None
    for kind, text, depth, start, _ in tokens(sql):
        if ended and text != b";":
            raise DbError(62, "Syntax error (Multi-statements are not allowed): failed at position"
                              f" {start + 1}: {text.decode(errors='replace')}. (SYNTAX_ERROR)")
        ended = ended or (text == b";" and not depth)
        if before == b"FORMAT" and kind == "word" and not depth:
            named = text.decode()
        before = text.upper()
    if before is None:
        raise DbError(62, "Syntax error: failed at position 1 (end of query): . Empty query. (SYNTAX_ERROR)")
    return named


def unframe(data):
    """ClickHouse's own compression frames: checksum, method, sizes, block."""
    out, at = [], 0
    while at < len(data):
        if len(data) - at < 25:
            raise DbError(33, "Cannot read all data: compressed frame ends early. (CANNOT_READ_ALL_DATA)")
        method, packed, plain = struct.unpack_from("<BII", data, at + 16)
        block = data[at + 25:at + 16 + packed]
        if packed < 9 or len(block) != packed - 9:
            raise DbError(33, "Cannot read all data: compressed frame ends early. (CANNOT_READ_ALL_DATA)")
        if method == 0x82:
            try:
                out.append(lz4.block.decompress(block, uncompressed_size=plain))
            except lz4.block.LZ4BlockError as error:
                raise DbError(271, f"Cannot decompress: {error}. (CANNOT_DECOMPRESS)") from error
        elif method == 0x02:
            out.append(block)
        else:
            raise DbError(432, f"Unknown codec family code: {method}. (UNKNOWN_CODEC)")
        at += 16 + packed
    return b"".join(out)


class Engine:
    """The one engine of this process; a connection of its own for each request."""

    def __init__(self, path, database):
        self.path = path
        self.base = session.Session(path)
        self.base.query(f"CREATE DATABASE IF NOT EXISTS {quote(database)} ENGINE = Atomic")
        self.version = self.base.query("SELECT version()", "TSVRaw").bytes().decode().strip()
        rows = self.base.query("SELECT number, errorCodeToName(toUInt32(number)) FROM numbers(1200)", "TSV")
        self.names = dict(line.split("\t") for line in rows.bytes().decode().splitlines())

    def status(self, code):
        return STATUS_OF.get(self.names.get(str(code), ""), 500)

    def run(self, sql, fmt, database, settings, params):
        """Runs one statement; answers (body, format, rows read, rows written)."""
        insert = split_insert(sql)
        named = None if insert else check_single(sql)
        connection = session.Session(self.path)
        try:
            # Where the wheel's defaults are not the server's.
            connection.query("SET implicit_select = 0, allow_introspection_functions = 0")
            if database:
                connection.query(f"USE {quote(database)}")
            if settings:
                connection.query("SET " + ", ".join(f"{k} = {literal(v)}" for k, v in settings))
            if insert:
                # As one statement: the wheel's streaming insert reports rows that a
                # failing write (such as too many partitions) did not store.
                head, fmt, data = insert
                if fmt in BINARY:
                    return b"", fmt, 0, self.insert_file(connection, head, fmt, data)
                try:
                    text = data.decode()
                except UnicodeDecodeError as error:
                    raise DbError(48, "This front takes text formats as UTF-8 only. (NOT_IMPLEMENTED)") from error
                result = connection.query(f"{head} FORMAT {fmt}\n{text}")
                return b"", fmt, 0, result.rows_written()
            result = connection.query(sql.decode(), fmt, params=params)
            return result.bytes() or b"", named or fmt, result.rows_read(), result.rows_written()
        except DbError:
            raise
        except UnicodeDecodeError as error:
            raise DbError(62, "Syntax error: the query is not UTF-8. (SYNTAX_ERROR)") from error
        except Exception as error:
            raise DbError.of(error) from error
        finally:
            connection.close()


    @staticmethod
    def insert_file(connection, head, fmt, data):
        """Inserts rows of a binary format; answers how many. Behind a statement the wheel
        takes an empty line for the end of the rows, so they are handed over as a file."""
        handle = os.memfd_create("rows")
        try:
            with os.fdopen(handle, "wb", closefd=False) as file:
                file.write(data)
            source = f"FROM INFILE '/proc/self/fd/{handle}'"
            return connection.query(f"{head} {source} FORMAT {fmt}").rows_written()
        finally:
            os.close(handle)


def quote(name):
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value):
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Front:
    """The door: authentication, parameters, faults, answers."""

    def __init__(self, engine, user, password):
        self.engine, self.user, self.password = engine, user, password
        self.pool = concurrent.futures.ThreadPoolExecutor(16)
        self.fault = {"mode": "off", "only": "all", "left": None, "struck": 0}
        self.lifted = asyncio.Event()

    async def ping(self, _request):
        return web.Response(body=b"Ok.\n", content_type="text/html", charset="UTF-8")

    async def set_fault(self, request):
        if request.method == "POST":
            mode, count = request.query.get("mode", "off"), request.query.get("count")
            if not re.fullmatch(r"off|slow:\d+|hang|readonly|error:\d+|drop-before|drop-after", mode):
                return web.Response(status=400, text="no such mode\n")
            only = request.query.get("only", "insert" if mode == "readonly" else "all")
            self.fault = {"mode": mode, "only": only, "left": int(count) if count else None, "struck": 0}
            self.lifted.set()
            self.lifted = asyncio.Event()
        return web.json_response(self.fault)

    def strike(self, sql):
        """The fault that this query meets."""
        fault = self.fault
        writes = re.match(rb"\s*INSERT\b", sql, re.I) is not None
        if fault["mode"] == "off" or fault["left"] == 0:
            return "off"
        if fault["only"] != "all" and (fault["only"] == "insert") != writes:
            return "off"
        fault["struck"] += 1
        if fault["left"] is not None:
            fault["left"] -= 1
        return fault["mode"]

    def authenticate(self, request):
        user, password = request.query.get("user"), request.query.get("password")
        basic = request.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            user, _, password = base64.b64decode(basic[6:]).decode().partition(":")
        user = request.headers.get("X-ClickHouse-User", user) or "default"
        password = request.headers.get("X-ClickHouse-Key", password) or ""
        if (user, password) != (self.user, self.password):
            raise DbError(516, f"{user}: Authentication failed: password is incorrect, or there is"
                               " no user with such name. (AUTHENTICATION_FAILED)")

    async def query(self, request):
        query_id = request.query.get("query_id") or str(uuid.uuid4())
        started = time.monotonic()
        headers = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Timezone": "UTC",
                   "X-ClickHouse-Server-Display-Name": "holdfast-test"}
        try:
            self.authenticate(request)
            given = list(request.query.items())
            if request.content_type == "multipart/form-data":
                form = [(k, v) for k, v in (await request.post()).items() if isinstance(v, str)]
                given += [(k, v) for k, v in form if k != "query"]
                body = "".join(v for k, v in form if k == "query").encode()
            else:
                body = await request.read()
            if request.query.get("decompress", "0") not in ("0", ""):
                body = unframe(body)
            if request.headers.get("Content-Encoding", "").lower() == "lz4":
                body = lz4.frame.decompress(body)
            if request.query.get("compress", "0") not in ("0", ""):
                raise DbError(48, "compress=1 is not part of the test equipment, use"
                                  " Accept-Encoding: lz4. (NOT_IMPLEMENTED)")
            head = request.query.get("query", "")
            sql = (head + "\n").encode() + body if head else body

            fault = self.strike(sql)
            if fault.startswith("slow:"):
                await asyncio.sleep(int(fault[5:]) / 1000)
            elif fault == "hang":
                await self.lifted.wait()
            elif fault == "readonly":
                raise DbError(242, "Table is in readonly mode. (TABLE_IS_READ_ONLY)")
            elif fault.startswith("error:"):
                code = int(fault[6:])
                raise DbError(code, f"A fault that the test asked for. ({self.engine.names.get(str(code), '')})")
            elif fault == "drop-before":
                return self.drop(request)

            settings = [(k, v) for k, v in given if k not in NOT_SETTINGS and not k.startswith("param_")]
            for name, _ in settings:
                if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
                    raise DbError(115, f"Unknown setting '{name}'. (UNKNOWN_SETTING)")
            if request.method == "GET":
                settings.append(("readonly", "2"))
            params = {k[6:]: v for k, v in given if k.startswith("param_")}
            fmt = request.query.get("default_format") or request.headers.get("X-ClickHouse-Format") or "TabSeparated"
            database = request.query.get("database") or request.headers.get("X-ClickHouse-Database")
            answer, fmt, read, written = await asyncio.get_running_loop().run_in_executor(
                self.pool, self.engine.run, sql, fmt, database, settings, params)
            if fault == "drop-after":
                return self.drop(request)
            status = 200
            headers["X-ClickHouse-Format"] = fmt
            headers["X-ClickHouse-Summary"] = json.dumps({
                "read_rows": str(read), "written_rows": str(written),
                "elapsed_ns": str(int((time.monotonic() - started) * 1e9))})
            text = fmt.startswith(("Tab", "TSV")), fmt.startswith("JSON"), fmt.startswith("CSV")
            headers["Content-Type"] = next(itertools.compress(
                ("text/tab-separated-values; charset=UTF-8", "application/json; charset=UTF-8",
                 "text/csv; charset=UTF-8; header=absent"), text), "application/octet-stream")
        except DbError as error:
            status = self.engine.status(error.code)
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            headers["Content-Type"] = "text/plain; charset=UTF-8"
            answer = (f"Code: {error.code}. DB::Exception: {error.text}"
                      f" (version {self.engine.version} (official build))\n").encode()
        accepts = request.headers.get("Accept-Encoding", "")
        if request.query.get("enable_http_compression", "1") not in ("0", "") and answer:
            if "lz4" in accepts:
                headers["Content-Encoding"], answer = "lz4", lz4.frame.compress(answer)
            elif "gzip" in accepts:
                headers["Content-Encoding"], answer = "gzip", gzip.compress(answer, 1)
        return web.Response(status=status, headers=headers, body=answer)

    @staticmethod
    def drop(request):
        if request.transport:
            request.transport.abort()
        return web.Response(status=500)


async def serve_both(app, args, tls):
    """One application behind two ports, until a signal."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    await web.TCPSite(runner, "127.0.0.1", args.port).start()
    await web.TCPSite(runner, "127.0.0.1", args.tls_port, ssl_context=tls).start()
    await end.wait()
    await runner.cleanup()


def main():
    parser = argparse.ArgumentParser(description="ClickHouse's engine behind its HTTP interface, for tests.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True, help="directory of the data, made if missing")
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", default="")
    parser.add_argument("--database", default="default", help="made if missing")
    parser.add_argument("--tls-port", type=int, help="the same behind TLS, beside the other port")
    parser.add_argument("--certificate", help="PEM, for --tls-port")
    parser.add_argument("--key", help="PEM, for --tls-port")
    args = parser.parse_args()

    engine = Engine(args.path, args.database)
    front = Front(engine, args.user, args.password)
    app = web.Application(client_max_size=0)
    app.router.add_get("/ping", front.ping)
    app.router.add_get("/replicas_status", front.ping)
    app.router.add_route("*", "/__fault", front.set_fault)
    app.router.add_post("/", front.query)

    async def get(request):
        return await (front.query(request) if "query" in request.query else front.ping(request))

    app.router.add_get("/", get)

    async def close(_app):
        front.pool.shutdown(wait=True)
        engine.base.close()

    app.on_cleanup.append(close)
    if args.tls_port:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(args.certificate, args.key)
        asyncio.run(serve_both(app, args, tls))
        return
    web.run_app(app, host="127.0.0.1", port=args.port, print=None, access_log=None, shutdown_timeout=2)


if __name__ == "__main__":
    main()

"""The judge of tables: every expected row is there once, as expected, and no other row is.

Used by ../queues.py. One query for each table; Postgres through psql.
"""

import base64
import collections
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from .compare import difference
from .topology import CLICKHOUSE_CHECKS, CONSTRAINT, POSTGRES_CHECKS, REFUSED

# Shown of each kind of fault; the rest is counted.
SHOWN = 4


class ClickHouse:
    """Its HTTP interface."""

    def __init__(self, url, user, password, database):
        self.url, self.database = url, database
        self.authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def run(self, sql):
        settings = {
            "database": self.database,
            "output_format_json_quote_64bit_integers": "0",
            "json_type_escape_dots_in_keys": "1",
        }
        request = urllib.request.Request(
            f"{self.url}/?{urllib.parse.urlencode(settings)}", sql.encode(), {"Authorization": self.authorization}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            sys.exit(f"ClickHouse: {sql[:200]}: {error.read().decode()[:500]}")

    def counts(self, tables):
        parts = [f"SELECT '{table}', count() FROM `{table}` FINAL" for table in tables]
        lines = self.run(" UNION ALL ".join(parts) + " FORMAT TSV").splitlines()
        return {table: int(count) for table, count in (line.split("\t") for line in lines)}

    def rows(self, table):
        answer = self.run(f"SELECT * FROM `{table}` FINAL FORMAT JSONEachRow")
        # Not `splitlines`, which also splits at characters that JSON has in texts.
        return [json.loads(line) for line in answer.split("\n") if line]


class Postgres:
    """Through psql."""

    def __init__(self, url):
        self.url = url

    def run(self, sql):
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", sql]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            sys.exit(f"Postgres: {sql[:200]}: {done.stderr}")
        return done.stdout

    def counts(self, tables):
        return {table: int(self.run(f"SELECT count(*) FROM {table}")) for table in tables}

    def rows(self, table):
        answer = self.run(f"SELECT row_to_json(t) FROM {table} t")
        return [json.loads(line) for line in answer.split("\n") if line]


def set_refusals(clickhouse, postgres, on):
    """Makes tables refuse texts with the mark, or lets them take everything again."""
    for database, checks in ((clickhouse, CLICKHOUSE_CHECKS), (postgres, POSTGRES_CHECKS)):
        for table, column in checks.items():
            change = f"ADD CONSTRAINT {CONSTRAINT} CHECK ({column} NOT LIKE '%{REFUSED}%')" if on else f"DROP CONSTRAINT {CONSTRAINT}"
            database.run(f"ALTER TABLE {table} {change}")


class Judge:
    """Compares tables with the expected rows."""

    def __init__(self):
        self.faults = collections.defaultdict(list)
        self.found = 0

    def table(self, name, rows, expected, is_clickhouse):
        """`expected`: rows of the record for this table."""
        self.found += len(rows)
        by_key = {}
        for key in {tuple(each["key"]) for each in expected}:
            index = by_key[key] = collections.defaultdict(list)
            for at, found in enumerate(rows):
                index[tuple(found[column] for column in key)].append(at)
        known = set()
        for each in expected:
            key = tuple(each["row"][column] for column in each["key"])
            places = by_key[tuple(each["key"])][key]
            what = f"{name} {key}"
            if not places:
                self.faults["missing"].append(what)
                continue
            if len(places) > 1:
                self.faults["twice"].append(what)
            known.update(places)
            wrong = self.row(rows[places[0]], each["row"], is_clickhouse)
            if wrong:
                self.faults["different"].append(f"{what}: {wrong}")
        for at, found in enumerate(rows):
            if at not in known:
                self.faults["not expected"].append(f"{name} {json.dumps(found, ensure_ascii=False)[:300]}")

    def row(self, found, wanted, is_clickhouse):
        if found.keys() != wanted.keys():
            return f"columns {sorted(found.keys() ^ wanted.keys())}"
        for column, value in wanted.items():
            wrong = difference(found[column], value, drop=is_clickhouse)
            if wrong:
                return f"{column}: {wrong}"
        return None

    def verdict(self):
        """Ends the script if anything is wrong."""
        if self.faults:
            lines = [f"{len(faults)} {kind}:\n    " + "\n    ".join(faults[:SHOWN]) for kind, faults in self.faults.items()]
            sys.exit(f"of {self.found} rows found\n  " + "\n  ".join(lines))


def eager_clicks(clickhouse, address, people_max, lives):
    """Of an address that clicks too often: how many clicks are not called a bot's, and whether
    that fits the bound in so many lives of the collector."""
    sql = (
        "SELECT toString(event_params.userAgentJson.bot) AS bot FROM events FINAL "
        f"WHERE event_name = 'ClickEvent' AND toString(event_params.clientIp) = '{address}' FORMAT JSONEachRow"
    )
    bots = [json.loads(line)["bot"] for line in clickhouse.run(sql).split("\n") if line]
    people = bots.count("false")
    least, most = min(len(bots), people_max), min(len(bots), people_max * lives)
    if not least <= people <= most:
        sys.exit(f"of {len(bots)} clicks of {address} {people} count as a person's, not {least} to {most}")
    return len(bots), people


TABLES = {"clickhouse": CLICKHOUSE_CHECKS, "postgres": POSTGRES_CHECKS}


def by_table(expected):
    """The expected rows of each table."""
    found = collections.defaultdict(list)
    for each in expected.rows:
        found[each["store"], each["table"]].append(each)
    return found


def missing(stores, wanted):
    """Tables that have fewer rows than they must: (found, expected)."""
    wrong = {}
    for store, database in stores.items():
        for table, count in database.counts(TABLES[store]).items():
            if count < len(wanted[store, table]):
                wrong[f"{store} {table}"] = (count, len(wanted[store, table]))
    return wrong


def judge(stores, expected, only):
    """`stores` by name; gives how many rows were found."""
    verdict, wanted = Judge(), by_table(expected)
    for store, database in stores.items():
        for table in TABLES[store]:
            if not only or table in only:
                verdict.table(table, database.rows(table), wanted[store, table], store == "clickhouse")
    verdict.verdict()
    return verdict.found

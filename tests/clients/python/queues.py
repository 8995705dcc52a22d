#!/usr/bin/env python3
"""A foreign producer for all of the contract's consumers, and the judge of what became of it.

    queues.py produce AMQP_URL RECORD COUNT SEED [--queues A,B] [--not C] [--from I] [--to J]
    queues.py refuse CLICKHOUSE... POSTGRES_URL | queues.py forgive CLICKHOUSE... POSTGRES_URL
    queues.py judge CLICKHOUSE... POSTGRES_URL RECORD [STATE] [--table A,B] [--lives N]
    queues.py errors AMQP_URL RECORD [STATE] [--wait S]
    queues.py calls FILE RECORD [STATE] [--repeats N]
    queues.py drained AMQP_URL --wait S
    queues.py retried AMQP_URL

CLICKHOUSE is URL USER PASSWORD DATABASE.

produce  puts COUNT messages on each queue's exchange, one of a hundred broken, and adds
         them to RECORD (consumers/message.py says what is in it). --from and --to choose
         a part of the COUNT.
refuse   makes tables refuse texts with a mark; forgive lets them take everything.
judge    every expected row is in its table once, as expected, and no other row is.
errors   every refused message is in its error queue once, with its reason, and nothing
         else is in any. It only looks.
calls    every call of an API was made once; FILE has a JSON line for each.
drained  waits until no queue with a consumer has a message waiting.
retried  no message anywhere has spent an attempt.
STATE    --taken, --repaired, --then: see consumers/expected.py.
Exit code 0: all was as it must be.
"""

import argparse
import signal
import sys

from consumers import refusals, tables
from consumers.broker import Looker, publish
from consumers.clicks import Click
from consumers.expected import Expected
from consumers.message import read_record
from consumers.plan import messages
from consumers.topology import ROUTES, error_queues, producible

# Longer than anything here takes; a script never outlives it.
signal.alarm(300)

CLICKHOUSE = ["clickhouse", "user", "password", "database"]
STATES = ["taken", "repaired", "then"]


def produce(arguments):
    chosen = arguments.queues.split(",") if arguments.queues else producible()
    chosen = [queue for queue in chosen if queue not in (arguments.leave_out or "").split(",")]
    bytes_sent = 0
    with open(arguments.record, "a", encoding="utf-8") as record:

        def recorded():
            nonlocal bytes_sent
            for message in messages(arguments.seed, arguments.count, chosen):
                if arguments.first <= message.n < (arguments.last or arguments.count):
                    record.write(message.line() + "\n")
                    bytes_sent += len(message.body)
                    yield message

        sent = publish(arguments.amqp, recorded())
    print(f"{sent} messages of {bytes_sent} bytes to {len(chosen)} queues' exchanges")


def stores(arguments):
    clickhouse = tables.ClickHouse(arguments.clickhouse, arguments.user, arguments.password, arguments.database)
    return {"clickhouse": clickhouse, "postgres": tables.Postgres(arguments.postgres)}


def expected(arguments):
    return Expected(read_record(arguments.record), [state for state in STATES if getattr(arguments, state)])


def judge(arguments):
    wanted, found = expected(arguments), stores(arguments)
    only = arguments.table.split(",") if arguments.table else None
    rows = tables.judge(found, wanted, only)
    print(f"{wanted.messages} messages, {wanted.broken} of them broken: {rows} rows are as expected")
    if not only or "events" in only:
        clicks = tables.eager_clicks(found["clickhouse"], Click.EAGER_ADDRESS, Click.PEOPLE_PER_DAY, arguments.lives)
        print(f"of {clicks[0]} clicks of the eager address {clicks[1]} count as a person's")


def errors(arguments):
    looker = Looker(arguments.amqp)
    count = refusals.errors(looker, expected(arguments), arguments.wait)
    looker.close()
    print(f"error queues hold the {count} messages that they must")


def calls(arguments):
    count, repeats = refusals.calls(arguments.file, expected(arguments), arguments.repeats)
    print(f"{count} calls are as expected, {repeats} of them were made again")


def drained(arguments):
    looker = Looker(arguments.amqp)
    consumed = sorted(set(ROUTES) - set(error_queues()))
    looker.until("queues are empty", arguments.wait, lambda: {q: n for q, n in looker.waiting(consumed).items() if n})
    looker.close()


def retried(arguments):
    looker = Looker(arguments.amqp)
    spent = refusals.retried(looker)
    looker.close()
    if spent:
        sys.exit(f"{len(spent)} messages have spent attempts, such as {spent[:3]}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    verbs = parser.add_subparsers(required=True)

    def verb(work, *positional):
        found = verbs.add_parser(work.__name__)
        found.set_defaults(work=work)
        for name in positional:
            found.add_argument(name, type=int if name in ("count", "seed") else str)
        if "record" in positional and work is not produce:
            for state in STATES:
                found.add_argument(f"--{state}", action="store_true")
        return found

    producing = verb(produce, "amqp", "record", "count", "seed")
    producing.add_argument("--queues")
    producing.add_argument("--not", dest="leave_out")
    producing.add_argument("--from", dest="first", type=int, default=0)
    producing.add_argument("--to", dest="last", type=int)
    for name, on in (("refuse", True), ("forgive", False)):

        def change(arguments, on=on):
            tables.set_refusals(*stores(arguments).values(), on)

        change.__name__ = name
        verb(change, *CLICKHOUSE, "postgres")
    judging = verb(judge, *CLICKHOUSE, "postgres", "record")
    judging.add_argument("--table")
    judging.add_argument("--lives", type=int, default=1)
    verb(errors, "amqp", "record").add_argument("--wait", type=float, default=0)
    verb(calls, "file", "record").add_argument("--repeats", type=int, default=0)
    verb(drained, "amqp").add_argument("--wait", type=float, default=0)
    verb(retried, "amqp")
    arguments = parser.parse_args()
    arguments.work(arguments)


main()

#!/usr/bin/env python3
"""A foreign producer for all of the contract's consumers, and the judge of what became of it.

    queues.py produce AMQP_URL RECORD COUNT SEED [--queues A,B] [--not C] [--from I] [--to J]
    queues.py refuse CLICKHOUSE... POSTGRES_URL
    queues.py forgive CLICKHOUSE... POSTGRES_URL
    queues.py arrived CLICKHOUSE... POSTGRES_URL AMQP_URL CALLS RECORDS [STATE] --wait S
    queues.py judge CLICKHOUSE... POSTGRES_URL RECORDS [STATE] [--table A,B] [--lives N]
    queues.py errors AMQP_URL RECORDS [STATE] [--partial] [--killed-to N]
    queues.py calls CALLS RECORDS [STATE] [--killed-to N] [--in-work N]
    queues.py repair RECORDS SHOWN MENDED
    queues.py held AMQP_URL RECORDS --window W --wait S
    queues.py emptied AMQP_URL [--wait S]
    queues.py drained AMQP_URL [--wait S]
    queues.py retried AMQP_URL

CLICKHOUSE is URL USER PASSWORD DATABASE; RECORDS are files with a comma between.

produce  puts COUNT messages on each queue's exchange, one of a hundred broken, and adds
         them to RECORD (consumers/message.py says what is in it). --from and --to choose
         a part of the COUNT.
refuse   makes tables refuse texts with a mark; forgive lets them take everything.
arrived  waits until tables, error queues and CALLS have as many as they must.
judge    every expected row is in its table once, as expected, and no other row is.
errors   every refused message is in its error queue once, with its reason, and nothing
         else is in any. It only looks.
calls    every call of an API was made once; CALLS has a JSON line for each.
repair   mends the letters of SHOWN, as `holdfast dlq show --json` prints them, by the
         record, and writes them to MENDED.
held     waits until each consumer of ClickHouse holds W messages of what was produced,
         and the other consumers are done.
emptied  waits until nothing waits for the collector's consumers any more.
drained  waits until the collector's consumers are gone; they have left nothing.
retried  no message that waits anywhere has spent an attempt.
STATE    --taken, --repaired, --then: see consumers/expected.py.
Exit code 0: all was as it must be.
"""

import argparse
import collections
import signal
import sys

from consumers import calls as api
from consumers import refusals, tables
from consumers.broker import Looker, publish
from consumers.clicks import Click
from consumers.expected import Expected
from consumers.message import read_record
from consumers.plan import messages
from consumers.topology import ELSEWHERE, ERRORS_ONLY, ROUTES, error_queues, producible, queues_of

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
    return Expected(read_record(arguments.records), [state for state in STATES if getattr(arguments, state)])


def refuse(arguments):
    tables.set_refusals(*stores(arguments).values(), True)


def forgive(arguments):
    tables.set_refusals(*stores(arguments).values(), False)


def arrived(arguments):
    wanted, found, looker = expected(arguments), stores(arguments), Looker(arguments.amqp)
    rows = tables.by_table(wanted)
    looker.until("rows (found, expected)", arguments.wait, lambda: tables.missing(found, rows))
    looker.until("error queues (found, expected)", arguments.wait, lambda: refusals.missing(looker, wanted))
    looker.until("calls to come", arguments.wait, lambda: api.missing(arguments.calls, wanted))
    looker.close()


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
    count, again = refusals.errors(looker, expected(arguments), arguments.partial, arguments.killed_to)
    looker.close()
    print(f"error queues hold {count} messages as expected, {again} of them again")


def repair(arguments):
    count = refusals.repair(Expected(read_record(arguments.records), []), arguments.shown, arguments.mended)
    print(f"{count} letters are mended")


def calls(arguments):
    count, again = api.judge(arguments.calls, expected(arguments), arguments.killed_to, arguments.in_work)
    print(f"{count} calls are as expected, {again} of them again")


def held(arguments):
    produced, unreadable = collections.Counter(), collections.Counter()
    for entry in read_record(arguments.records):
        produced.update(queues_of(entry["queue"]))
        unreadable.update(outcome["queue"] for outcome in entry["outcomes"] if "error" in outcome)
    waiting = {}
    for queue, count in produced.items():
        most = 0 if queue in ELSEWHERE else max(0, count - arguments.window)
        # What cannot be read may go its way: it needs no table.
        waiting[queue] = (max(0, most - unreadable[queue]), most)
    looker = Looker(arguments.amqp)
    looker.until("waiting (found, expected)", arguments.wait, lambda: looker.holds(waiting))
    looker.close()
    print(f"{sum(most for _, most in waiting.values())} messages wait in the broker")


def consumed():
    return sorted(set(ROUTES) - set(error_queues()) - {ERRORS_ONLY})


def emptied(arguments):
    looker, nothing = Looker(arguments.amqp), dict.fromkeys(consumed(), (0, 0))
    looker.until("waiting (found, expected)", arguments.wait, lambda: looker.holds(nothing))
    looker.close()


def drained(arguments):
    looker, queues = Looker(arguments.amqp), consumed()
    # A queue gives back what a consumer held in the same step as it forgets the consumer.
    looker.until("no consumer is left", arguments.wait, lambda: looker.consumed(queues))
    left = looker.holds(dict.fromkeys(queues, (0, 0)))
    looker.close()
    if left:
        sys.exit(f"not taken (found, expected): {left}")


def retried(arguments):
    looker = Looker(arguments.amqp)
    looked_at, spent = refusals.retried(looker)
    looker.close()
    if spent:
        sys.exit(f"{len(spent)} messages have spent attempts, such as {spent[:3]}")
    print(f"{looked_at} messages wait, and none has spent an attempt")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    verbs = parser.add_subparsers(required=True)

    def verb(work, *positional, **options):
        found = verbs.add_parser(work.__name__)
        found.set_defaults(work=work)
        for name in positional:
            found.add_argument(name, type=int if name in ("count", "seed") else str)
        if "records" in positional:
            options.update((state, False) for state in STATES)
        for name, default in options.items():
            flag = f"--{name.replace('_', '-')}"
            if default is False:
                found.add_argument(flag, action="store_true")
            else:
                found.add_argument(flag, type=type(default), default=default)
        return found

    producing = verb(produce, "amqp", "record", "count", "seed", queues="")
    producing.add_argument("--not", dest="leave_out")
    producing.add_argument("--from", dest="first", type=int, default=0)
    producing.add_argument("--to", dest="last", type=int)
    verb(refuse, *CLICKHOUSE, "postgres")
    verb(forgive, *CLICKHOUSE, "postgres")
    verb(arrived, *CLICKHOUSE, "postgres", "amqp", "calls", "records", wait=0.0)
    verb(judge, *CLICKHOUSE, "postgres", "records", table="", lives=1)
    verb(errors, "amqp", "records", partial=False, killed_to=0)
    verb(calls, "calls", "records", killed_to=0, in_work=0)
    verb(repair, "records", "shown", "mended")
    verb(held, "amqp", "records", window=0, wait=0.0)
    verb(emptied, "amqp", wait=60.0)
    verb(drained, "amqp", wait=20.0)
    verb(retried, "amqp")
    arguments = parser.parse_args()
    arguments.work(arguments)


main()

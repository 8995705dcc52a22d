#!/usr/bin/env python3
"""A reader of the broker made of pika and Python's protobuf.

    read_queue.py bind STUBS_FOLDER AMQP_URL
    read_queue.py check STUBS_FOLDER AMQP_URL RECORD

bind    binds a queue of its own to the exchange, and one to the error exchange; both
        must be there already: the collector declares them.
check   reads the queue, parses each message with Python's protobuf JSON parser (or as
        protobuf where it says so), and compares with what was dispatched. A message of
        several documents is one line after the other.
Exit code 0: every event of RECORD came once, as it was, in the right envelope.
"""

import json
import sys

import pika
from google.protobuf import json_format

import contract
from contract import same, single

EXCHANGE, QUEUE = "grpc_event.tx", "foreign_reader"
WAIT = 30


def bind(channel):
    channel.exchange_declare(EXCHANGE, passive=True)
    channel.queue_declare(QUEUE, durable=True)
    for key in ("*", "Unknown.*"):
        channel.queue_bind(QUEUE, EXCHANGE, key)


def groups(host, seq, batch, messages):
    """A batch's messages: by event name, in the order of their first event."""
    names = {}
    for index, event in enumerate(batch.events):
        names.setdefault(contract.name_of(event), []).append(index)
    for part, (name, indexes) in enumerate(names.items()):
        events = [batch.events[index] for index in indexes]
        yield f"{host}-{seq}-{part}", name, indexes, messages.Events(header=batch.header, events=events)


def ranges(text):
    """`0-2,7` as [0, 1, 2, 7]."""
    indexes = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        indexes += range(int(first), int(last or first) + 1)
    return indexes


def documents(properties, body):
    """The documents of a message: id, identity and body of each."""
    headers = properties.headers
    host = headers["x-holdfast-host"]
    if properties.content_type != "application/x-ndjson; proto=event.Events":
        identity = (headers["x-holdfast-seq"], headers["x-holdfast-indexes"], headers["x-holdfast-received-at-ms"])
        yield properties.message_id, host, identity, body
        return
    for name in ("seq", "indexes", "received-at-ms"):
        same(f"x-holdfast-{name}", headers.get(f"x-holdfast-{name}"), None)
    entries = headers["x-holdfast-documents"].split(";")
    lines = body.splitlines()
    same("lines", len(lines), len(entries))
    for entry, line in zip(entries, lines):
        seq, part, received_at_ms, indexes = entry.split(":")
        yield f"{host}-{seq}-{part}", host, (int(seq), indexes, int(received_at_ms)), line


def check(channel, messages, record):
    wanted = {}
    for host, seq, batch in contract.Record(record).read(messages.Events):
        for message_id, *group in groups(host, seq, batch, messages):
            wanted[message_id] = (host, seq, *group)
    count = several = 0
    # Ends with the last message, or when none comes for so long.
    for method, properties, body in channel.consume(QUEUE, inactivity_timeout=WAIT):
        if method is None:
            sys.exit(f"{len(wanted)} messages did not come, the first is {next(iter(wanted.items()))}")
        several += "x-holdfast-documents" in properties.headers
        for message_id, *identity, document in documents(properties, body):
            if message_id not in wanted:
                sys.exit(f"message {message_id}, key {method.routing_key}, was not expected")
            host, seq, name, indexes, batch = wanted.pop(message_id)
            envelope(message_id, method, properties, identity, (host, seq, name, indexes))
            if name.startswith("Unknown."):
                same("content type", properties.content_type, "application/x-protobuf")
                found = messages.Events.FromString(document)
            else:
                if "x-holdfast-documents" not in properties.headers:
                    same("content type", properties.content_type, "application/json")
                found = json_format.Parse(document, messages.Events())
                # The contract's form of JSON, and not only one that a parser forgives.
                same(message_id, single(json.loads(document)), single(contract.as_json(batch)))
            contract.equal(f"{message_id} {name}", found, batch)
            count += 1
        channel.basic_ack(method.delivery_tag)
        if not wanted:
            break
    channel.cancel()
    left = channel.queue_declare(QUEUE, passive=True).method.message_count
    same("messages beyond", left, 0)
    print(f"{count} documents are as dispatched, {several} messages held several")


def envelope(message_id, method, properties, identity, wanted):
    host, seq, name, indexes = wanted
    from_host, (from_seq, places, received_at_ms) = identity
    same(f"{message_id} exchange", method.exchange, EXCHANGE)
    same(f"{message_id} routing key", method.routing_key, name)
    same(f"{message_id} delivery mode", properties.delivery_mode, 2)
    same(f"{message_id} host", from_host, host)
    same(f"{message_id} sequence", from_seq, seq)
    same(f"{message_id} indexes", ranges(places), indexes)
    same(f"{message_id} was received", received_at_ms > 1_700_000_000_000, True)


def main():
    verb, stubs, url, *more = sys.argv[1:]
    messages, _ = contract.compile_to(stubs)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    if verb == "bind":
        bind(channel)
    elif verb == "check":
        check(channel, messages, *more)
    else:
        sys.exit(__doc__)
    connection.close()


main()

#!/usr/bin/env python3
"""Compares a SQLite file's rows with what was dispatched.

    rows.py STUBS_FOLDER SQLITE_FILE RECORD

RECORD is what the dispatching script wrote; each of its events must be one row, with
the values that Python's protobuf JSON gives, and there must be no other row.
"""

import base64
import datetime
import json
import re
import sqlite3
import sys

import contract


def columns(header, event):
    """What the row of an event must hold."""
    wanted = {}
    for field in header.DESCRIPTOR.fields:
        if field.name != "currentURL":
            column = re.sub("([A-Z])", lambda found: "_" + found[1].lower(), field.name)
            wanted[column] = getattr(header, field.name)
    seconds, millis = divmod(int(event.timestamp), 1000)
    time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    wanted.update(
        event_id=event.id,
        event_name=contract.name_of(event),
        event_timestamp=f"{time:%Y-%m-%d %H:%M:%S}.{millis:03}",
        current_url=event.currentURL or header.currentURL,
        event_params=params(event),
    )
    return wanted


def params(event):
    """The case as JSON with int64 as numbers; a type unknown to us as its bytes."""
    case = event.WhichOneof("EventOf")
    if case:
        body = getattr(event, case)
        return contract.single(numbers(body.DESCRIPTOR, contract.as_json(body)))
    unknown = contract.unknown_number(event)
    if not unknown:
        return {}
    return {"unknownField": unknown, "eventProtobuf": event}


def numbers(descriptor, value):
    out = {}
    for name, item in value.items():
        field = descriptor.fields_by_name[name]
        if field.type == field.TYPE_INT64:
            item = [int(one) for one in item] if field.is_repeated else int(item)
        elif field.message_type and not field.message_type.GetOptions().map_entry:
            item = numbers(field.message_type, item)
        out[name] = item
    return out


def main():
    stubs, path, record = sys.argv[1:]
    messages, _ = contract.compile_to(stubs)
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    rows = {row["event_id"]: dict(row) for row in database.execute("SELECT * FROM events")}
    count = 0
    for host, seq, batch in contract.Record(record).read(messages.Events):
        for index, event in enumerate(batch.events):
            count += 1
            row = rows.get(event.id) or sys.exit(f"no row for {event.id}")
            wanted = columns(batch.header, event)
            row["event_params"] = contract.single(json.loads(row["event_params"]))
            if "eventProtobuf" in row["event_params"]:
                stored = base64.b64decode(row["event_params"]["eventProtobuf"])
                row["event_params"]["eventProtobuf"] = messages.Event.FromString(stored)
            wanted.update(ingest_host=host, ingest_index=index)
            if seq is not None:
                wanted["ingest_seq"] = seq
            contract.same(event.id, {name: row[name] for name in wanted}, wanted)
    contract.same("rows", len(rows), count)
    print(f"{count} rows are as dispatched")


main()

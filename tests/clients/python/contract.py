"""The contract as Python's own protobuf compiler and runtime understand it.

Used by the scripts beside it. Offers the classes generated from
proto/eventservice.proto (in a scratch folder, at run time), messages compared field
by field, event names, and the record of what was dispatched, through which the
sending script tells the checking ones.
"""

import base64
import json
import pathlib
import signal
import struct
import sys

from google.protobuf import json_format
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto" / "eventservice.proto"

# Longer than anything here takes; a script never outlives it.
signal.alarm(120)


def compile_to(folder):
    """Generates the classes into `folder`: the message module and the stubs."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    arguments = ["protoc", f"-I{PROTO.parent}", f"--python_out={folder}", f"--grpc_python_out={folder}", PROTO.name]
    if protoc.main(arguments) != 0:
        sys.exit(f"{PROTO} does not compile")
    sys.path.insert(0, str(folder))
    import eventservice_pb2
    import eventservice_pb2_grpc

    return eventservice_pb2, eventservice_pb2_grpc


def same(what, found, wanted):
    """Ends the script when the two differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys(), key=str):
            same(f"{what}, {key}", found.get(key), wanted.get(key))
    if found != wanted:
        sys.exit(f"{what}: found {found!r}, wanted {wanted!r}")


def name_of(event):
    """Event name and routing key: the case's name with a capital first letter."""
    case = event.WhichOneof("EventOf")
    if case:
        return case[0].upper() + case[1:]
    unknown = unknown_number(event)
    return f"Unknown.{unknown}" if unknown else "<nil>"


def unknown_number(message):
    """The number of the first field that the message's class does not know."""
    from google.protobuf import unknown_fields

    return next((field.field_number for field in unknown_fields.UnknownFieldSet(message)), None)


def differences(found, wanted, path=""):
    """Where two messages differ: every field, floats by their bits."""
    for field in wanted.DESCRIPTOR.fields:
        at = f"{path}.{field.name}"
        left, right = getattr(found, field.name), getattr(wanted, field.name)
        if field.has_presence and found.HasField(field.name) != wanted.HasField(field.name):
            yield f"{at}: set is {found.HasField(field.name)}"
        elif field.message_type and field.message_type.GetOptions().map_entry:
            if dict(left) != dict(right):
                yield f"{at}: {dict(left)!r}, wanted {dict(right)!r}"
        elif field.is_repeated:
            if len(left) != len(right):
                yield f"{at}: {len(left)} elements, wanted {len(right)}"
            for place, (one, other) in enumerate(zip(left, right)):
                if field.message_type:
                    yield from differences(one, other, f"{at}[{place}]")
                elif one != other:
                    yield f"{at}[{place}]: {one!r}, wanted {other!r}"
        elif field.message_type:
            if wanted.HasField(field.name):
                yield from differences(left, right, at)
        elif field.type == field.TYPE_FLOAT:
            if struct.pack("<f", left) != struct.pack("<f", right):
                yield f"{at}: {left!r}, wanted {right!r}"
        elif left != right:
            yield f"{at}: {left!r}, wanted {right!r}"
    if unknown_number(found) != unknown_number(wanted):
        yield f"{path}: unknown field {unknown_number(found)}, wanted {unknown_number(wanted)}"


def equal(what, found, wanted):
    """Ends the script when two messages differ in any field."""
    different = list(differences(found, wanted))
    if different:
        sys.exit(f"{what}:\n  " + "\n  ".join(different[:20]))
    # Nothing that the walk above does not look at.
    same(what, found.SerializeToString(deterministic=True), wanted.SerializeToString(deterministic=True))


def as_json(message):
    """The message as protobuf JSON with the contract's field names, parsed."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def single(value):
    """Parsed JSON with its fractions as single precision: writers differ in digits."""
    if isinstance(value, dict):
        return {key: single(item) for key, item in value.items()}
    if isinstance(value, list):
        return [single(item) for item in value]
    return struct.unpack("<f", struct.pack("<f", value))[0] if isinstance(value, float) else value


class Record:
    """The batches that were acknowledged, with host and sequence, in a file."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def add(self, host, seq, batch):
        line = {"host": host, "seq": seq, "batch": base64.b64encode(batch.SerializeToString()).decode()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read(self, events_class):
        """(host, seq, batch) of each."""
        for line in self.path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            batch = events_class.FromString(base64.b64decode(entry["batch"]))
            yield entry["host"], entry["seq"], batch

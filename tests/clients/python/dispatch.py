#!/usr/bin/env python3
"""A gRPC client made of grpcio and stubs that Python's tools generate.

    dispatch.py send STUBS_FOLDER GRPC_ADDRESS RECORD
    dispatch.py refusals STUBS_FOLDER GRPC_ADDRESS MAX_REQUEST_BYTES
    dispatch.py reflection STUBS_FOLDER GRPC_ADDRESS
    dispatch.py health STUBS_FOLDER GRPC_ADDRESS HTTP_ADDRESS

send        dispatches the samples, plain and compressed, and adds them to RECORD.
refusals    sends what must be refused, and checks code and text.
reflection  learns the service from the server alone, and calls it so.
health      watches the health service while the heartbeat is switched off and on.
Exit code 0: all was as it must be.
"""

import re
import sys
import urllib.error
import urllib.request

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import contract
from contract import same
from samples import Samples

SERVICE, METHOD = "event.EventService", "/event.EventService/dispatch"
WAIT = 30


def dispatch(stub, batch, **options):
    """Dispatches a batch; host and sequence from the answer's metadata."""
    answer, call = stub.dispatch.with_call(batch, timeout=WAIT, **options)
    same("status", answer.status, "SUCCESS")
    same("message", answer.message, "")
    metadata = {**dict(call.initial_metadata()), **dict(call.trailing_metadata())}
    host, seq = metadata.get("x-holdfast-host"), metadata.get("x-holdfast-seq")
    return host, seq and int(seq)


def send(messages, services, address, record):
    record = contract.Record(record)
    last = 0
    for name, compression in (("plain", grpc.Compression.NoCompression), ("gzip", grpc.Compression.Gzip)):
        channel = grpc.insecure_channel(address, compression=compression)
        stub = services.EventServiceStub(channel)
        for batch in Samples(messages).batches():
            for event in batch.events:
                event.id = f"{name}-{event.id}"
            host, seq = dispatch(stub, batch)
            same(f"{host!r} is a host id", bool(re.fullmatch("[0-9a-f]{32}", host or "")), True)
            same("sequence", seq, last + 1)
            last = seq
            record.add(host, seq, batch)
        # Nothing to keep, so no sequence.
        empty = messages.Events(header=batch.header)
        same("a batch without events", dispatch(stub, empty), (host, None))
        channel.close()
    print(f"dispatched {last} batches")


def refused(call, code, text):
    """Calls, and expects this code and a text that begins so."""
    try:
        call()
    except grpc.RpcError as error:
        same("code", error.code(), code)
        same("text", error.details()[: len(text)], text)
        return error
    sys.exit(f"was not refused with {code}")


def refusals(messages, services, address, bytes_max):
    channel = grpc.insecure_channel(address)
    stub = services.EventServiceStub(channel)
    raw = channel.unary_unary(METHOD, response_deserializer=messages.Response.FromString)
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    batch = Samples(messages).batch(["launchEvent", "widgetViewEvent"])

    without_header = messages.Events(events=batch.events)
    empty_device = messages.Events()
    empty_device.CopyFrom(batch)
    empty_device.header.deviceId = ""
    for incomplete in (without_header, empty_device, messages.Events()):
        error = refused(lambda: stub.dispatch(incomplete, timeout=WAIT), invalid, "Incomplete event")
        same("text", error.details(), "Incomplete event")

    valid = batch.SerializeToString()
    for broken in (valid[:-1], valid[:1], b"\xff" * 20, b"\x22\x03\x42\x01\xff"):
        refused(lambda: raw(broken, timeout=WAIT), invalid, "not a valid Events message")

    # Far over the bound, also when the wire carries only a little of it.
    padded = messages.Events()
    padded.CopyFrom(batch)
    padded.events[0].launchEvent.dynamicLink = "x" * int(bytes_max)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        try:
            stub.dispatch(padded, timeout=WAIT, compression=compression)
            sys.exit("a too large request was taken")
        except grpc.RpcError as error:
            # Never RESOURCE_EXHAUSTED, which says "try again".
            same("the code for too large", error.code(), grpc.StatusCode.OUT_OF_RANGE)
            print(f"too large, {compression.name}: {error.code()} {error.details()}")
    missing = channel.unary_unary(METHOD.replace("dispatch", "Dispatch"))
    refused(lambda: missing(valid, timeout=WAIT), grpc.StatusCode.UNIMPLEMENTED, "")

    # The connection has survived all that, and a request just under the bound passes.
    padded.events[0].launchEvent.dynamicLink = "x" * (int(bytes_max) - 2 * len(valid))
    dispatch(stub, padded)
    channel.close()


def reflection(messages, address):
    channel = grpc.insecure_channel(address)
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    same("services that are not listed", {SERVICE, "grpc.health.v1.Health"} - services, set())
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName(SERVICE).FindMethodByName("dispatch")
    learned, ours = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
    method.containing_service.file.CopyToProto(learned)
    messages.DESCRIPTOR.CopyToProto(ours)
    ours.name = learned.name
    drop_json_names(learned)
    same("the contract", learned.SerializeToString(deterministic=True), ours.SerializeToString(deterministic=True))
    request, answer = (message_factory.GetMessageClass(one) for one in (method.input_type, method.output_type))
    batch = request.FromString(Samples(messages).batch(["addToCartEvent"]).SerializeToString())
    call = channel.unary_unary(METHOD, request.SerializeToString, answer.FromString)
    same("status", call(batch, timeout=WAIT).status, "SUCCESS")
    channel.close()


def drop_json_names(descriptor):
    """Leaves out what a compiler may add of its own."""
    for message in getattr(descriptor, "message_type", []) or getattr(descriptor, "nested_type", []):
        drop_json_names(message)
    for field in getattr(descriptor, "field", []):
        field.ClearField("json_name")


def health(address, http):
    channel = grpc.insecure_channel(address)
    stub = health_pb2_grpc.HealthStub(channel)
    on, off = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    requests = [health_pb2.HealthCheckRequest(service=name) for name in ("", SERVICE)]
    watches = [stub.Watch(request, timeout=WAIT) for request in requests]

    def expect(status):
        for request, watch in zip(requests, watches):
            same(f"{request.service!r} watched", next(watch).status, status)
            same(f"{request.service!r} checked", stub.Check(request, timeout=WAIT).status, status)

    expect(on)
    same("heartbeat", beat(http), 200)
    for _ in range(2):
        same("switched off", beat(http, "false"), 200)
        same("heartbeat", beat(http), 410)
        expect(off)
        same("switched on", beat(http, "T"), 200)
        same("heartbeat", beat(http), 200)
        expect(on)
    same("not a boolean", beat(http, "maybe"), 400)
    other = health_pb2.HealthCheckRequest(service="nobody")
    refused(lambda: stub.Check(other, timeout=WAIT), grpc.StatusCode.NOT_FOUND, "")
    for watch in watches:
        watch.cancel()
    channel.close()


def beat(http, value=None):
    """Reads the heartbeat, or switches it; the HTTP status."""
    query = "" if value is None else f"?beat={value}"
    method = "GET" if value is None else "PUT"
    request = urllib.request.Request(f"http://{http}/heartbeat/{query}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def main():
    verb, stubs, address, *more = sys.argv[1:]
    messages, services = contract.compile_to(stubs)
    if verb == "send":
        send(messages, services, address, *more)
    elif verb == "refusals":
        refusals(messages, services, address, *more)
    elif verb == "reflection":
        reflection(messages, address)
    elif verb == "health":
        health(address, *more)
    else:
        sys.exit(__doc__)


main()

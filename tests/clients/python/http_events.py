#!/usr/bin/env python3
"""An HTTP client made of urllib, with bodies from Python's protobuf JSON.

    http_events.py STUBS_FOLDER HTTP_ADDRESS RECORD MAX_REQUEST_BYTES

Posts the samples to /events as one object, as lines, compressed and in the other
spellings of protobuf JSON, and adds them to RECORD; posts what must be refused, and
checks the status. Exit code 0: all was as it must be.
"""

import gzip
import json
import sys
import urllib.error
import urllib.request

from google.protobuf import json_format

import contract
from contract import same
from samples import Samples


def post(http, body, path="/events", **headers):
    """Status and parsed body of the answer."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{http}{path}", data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def main():
    stubs, http, record, bytes_max = sys.argv[1:]
    messages, _ = contract.compile_to(stubs)
    record = contract.Record(record)
    # Types that the contract does not have cannot be said in JSON.
    known = [batch for batch in Samples(messages).batches() if all(event.WhichOneof("EventOf") for event in batch.events)]

    def accept(batches, body, path="/events", **headers):
        status, answer = post(http, body, path, Content_Type="application/json", **headers)
        same(f"status of {path}, {answer[:200]}", status, 200)
        answer = json.loads(answer)
        same("answer", (answer["status"], answer["accepted"]), ("SUCCESS", len(batches)))
        for batch in batches:
            record.add(answer["host"], None, batch)

    def renamed(prefix):
        for batch in known:
            copy = messages.Events()
            copy.CopyFrom(batch)
            for event in copy.events:
                event.id = f"{prefix}-{event.id}"
            yield copy

    one, *_ = renamed("one")
    accept([one], json_format.MessageToJson(one).encode())
    # Contract spelling, all on one line, zero fields too, and a slash more.
    full, *_ = renamed("full")
    text = json_format.MessageToJson(
        full, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    )
    accept([full], text.encode(), "/events/")
    # int64 as numbers: JSON has them, and Python keeps their digits.
    plain = messages.Events(header=one.header)
    event = plain.events.add(id="plain", timestamp="1700000000123")
    event.testEvent.testParam2 = 2**63 - 1
    text = json_format.MessageToJson(plain).replace(f'"{2**63 - 1}"', str(2**63 - 1))
    accept([plain], text.encode())
    lines = list(renamed("line"))
    body = "".join(json_format.MessageToJson(batch, indent=None) + "\n" for batch in lines).encode()
    accept(lines, body)
    lines = list(renamed("gzip"))
    body = "\r\n".join(json_format.MessageToJson(batch, indent=None) for batch in lines).encode()
    accept(lines, gzip.compress(body), Content_Encoding="gzip")

    good = json_format.MessageToJson(known[0], indent=None)
    bad = {
        "empty": "",
        "not JSON": "{",
        "not an object": "[1]",
        "cut off": good[:-1],
        "an unknown field": '{"header": {"deviceId": "d", "noSuchField": 1}}',
        "a number out of range": '{"header": {"deviceId": "d", "userId": "9223372036854775808"}}',
        # Nothing of a body with a bad line is kept, whichever line it is.
        "a bad line": f"{good}\n{{\n",
        "no header": '{"events": []}',
        "no device": '{"header": {"os": "web"}}',
    }
    for what, body in bad.items():
        status, answer = post(http, body.encode())
        same(f"{what}: {answer[:200]}", status, 400)
        same(what, json.loads(answer)["status"], "ERROR")
    for incomplete in ("no header", "no device"):
        same(incomplete, json.loads(post(http, bad[incomplete].encode())[1])["message"], "Incomplete event")
    large = json.dumps({"header": {"deviceId": "x" * int(bytes_max)}}).encode()
    same("too large", post(http, large)[0], 413)
    same("too large when unpacked", post(http, gzip.compress(large), Content_Encoding="gzip")[0], 413)
    print("all posts were answered as they must be")


main()

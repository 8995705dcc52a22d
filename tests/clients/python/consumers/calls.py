"""The judge of calls: each is made once, with the body, the account and the headers that
the contract gives it.

Used by ../queues.py. The test's server writes a JSON line for each call: path, key
(the idempotency key), authorization, headers, body, status.
"""

import collections
import itertools
import json
import sys

from .compare import difference

SEARCH = "/userclientaccount/search"


def who(call):
    """Whom a call is about; users and addresses are of one message each."""
    body = json.loads(call["body"])
    if call["path"] == SEARCH:
        return next(each["value"] for each in body["filters"] if each["field"] == "email")
    return body.get("userId") or body.get("anonymousId")


def wanted_of(expected):
    """Each expected call, as (entry, path, who, body, headers, authorization, answers)."""
    for entry, outcome, answers in expected.calls:
        if "call" in outcome:
            call = outcome["call"]
            token = f"Bearer {call['account']}-key"
            yield entry, call["path"], call["user"], call["body"], call["headers"], token, answers
        if "search" in outcome:
            search = outcome["search"]
            yield entry, SEARCH, search["email"], None, search["headers"], None, [200]


def read(path):
    made = collections.defaultdict(list)
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                # The server may be writing the last one.
                if line.endswith("\n"):
                    call = json.loads(line)
                    made[call["path"], who(call)].append(call)
    except FileNotFoundError:
        pass
    return made


def missing(path, expected):
    """How many calls are not made yet."""
    made = read(path)
    return sum(len(made[where, user]) < len(answers) for _, where, user, *_, answers in wanted_of(expected))


def judge(path, expected, killed_to, in_work):
    """Gives how many calls were made, and how many of them again.

    Of messages up to the number `killed_to`, at most `in_work` calls may be made again:
    those that were in work when the collector was killed; a refused one may go through
    its attempts again.
    """
    made, wrong, count, again = read(path), [], 0, 0
    for entry, where, user, body, headers, token, answers in wanted_of(expected):
        found = made.pop((where, user), [])
        count += len(found)
        beyond = max(0, len(found) - len(answers))
        again += beyond if answers[-1] < 300 else 0
        fault = fault_of(found, body, headers, token, answers)
        if beyond and entry["n"] >= killed_to:
            fault = f"made {len(found)} times, not {len(answers)}"
        if fault:
            wrong.append(f"{entry['kind']} {where} {user}: {fault}")
    wrong += [f"not expected: {place}, {len(found)} times" for place, found in made.items()]
    if again > in_work:
        wrong.append(f"{again} calls were made again, {in_work} can have been in work")
    if wrong:
        sys.exit(f"{len(wrong)} calls are wrong:\n  " + "\n  ".join(wrong[:8]))
    return count, again


def runs(statuses):
    """How often each status comes, in the order in which they follow each other."""
    grouped = [(status, len(list(group))) for status, group in itertools.groupby(statuses)]
    return {(at, status): count for at, (status, count) in enumerate(grouped)}


def fault_of(found, body, headers, token, answers):
    if len(found) < len(answers):
        return f"made {len(found)} times, not {len(answers)}"
    keys = {call["key"] for call in found}
    if len(keys) != 1 or not keys.pop():
        return f"idempotency keys {[call['key'] for call in found]}"
    statuses = [call["status"] for call in found]
    # A call that was in work at the kill was made again, and answered the same.
    if runs(statuses).keys() != runs(answers).keys() or any(
        runs(statuses)[run] < count for run, count in runs(answers).items()
    ):
        return f"answered {statuses}, not {answers}"
    for call in found:
        if token and call["authorization"] != token:
            return f"authorization {call['authorization']!r}"
        sent = {name: value for name, value in call["headers"].items() if name.startswith("x-bb-")}
        if sent != headers:
            return f"headers {sent} instead of {headers}"
        wrong = body and difference(json.loads(call["body"]), body)
        if wrong:
            return wrong
    return None

"""Whether values found are those that were expected.

Used by the judges. Integers are compared digit for digit, documents as documents,
times as instants; see `values.expect` for the forms of expected values.
"""

import datetime
import json
import re


def instant_ms(text):
    """A time as a table or an API writes it; without a zone it is UTC."""
    text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text.replace("Z", "+00:00"))
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.timezone.utc)
    epoch = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)
    return (found - epoch) // datetime.timedelta(milliseconds=1)


def stored(document):
    """A document as ClickHouse's JSON keeps it: keys that are null or empty objects are not there."""
    if isinstance(document, dict):
        kept = {key: stored(value) for key, value in document.items()}
        return {key: value for key, value in kept.items() if value is not None and value != {}}
    if isinstance(document, list):
        return [stored(value) for value in document]
    return document


def difference(found, wanted, drop=False):
    """Where two values differ, or None; `drop`: as a column of ClickHouse's JSON."""
    if isinstance(wanted, dict):
        if "~any" in wanted:
            return None
        if "~ms" in wanted:
            return None if isinstance(found, str) and instant_ms(found) == wanted["~ms"] else told(found, wanted)
        if "~between" in wanted:
            first, last = wanted["~between"]
            return None if isinstance(found, str) and first <= instant_ms(found) <= last else told(found, wanted)
        if "~contains" in wanted:
            missing = [part for part in wanted["~contains"] if part not in str(found)]
            return told(found, wanted) if missing else None
        if "~text_doc" in wanted:
            return difference(json.loads(found), wanted["~text_doc"])
        if "~doc" in wanted:
            return document(found, wanted, drop)
        if "~partial" in wanted:
            wanted = wanted["~partial"]
            if not isinstance(found, dict):
                return told(found, wanted)
            found = {key: found.get(key) for key in wanted}
    return same(found, wanted, drop)


def document(found, wanted, drop):
    """A column of documents: an object, or text that holds one."""
    if isinstance(found, str):
        found, drop = json.loads(found), False
    whole = wanted["~doc"]
    if isinstance(whole, dict):
        whole = {**whole, **wanted.get("~with", {})}
    if drop:
        found, whole = stored(found), stored(whole)
    return same(found, whole, drop)


def same(found, wanted, drop):
    if isinstance(found, bool) or isinstance(wanted, bool):
        return None if found is wanted else told(found, wanted)
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in found.keys() | wanted.keys():
            if key not in found or key not in wanted:
                return f"{key!r}: {'missing' if key in wanted else 'not expected'}"
            inner = difference(found[key], wanted[key], drop)
            if inner:
                return f"{key!r}: {inner}"
        return None
    if isinstance(wanted, list) and isinstance(found, list):
        if len(found) != len(wanted):
            return told(found, wanted)
        for at, (one, other) in enumerate(zip(found, wanted)):
            inner = difference(one, other, drop)
            if inner:
                return f"[{at}]: {inner}"
        return None
    # Python compares whole numbers and floats by value, every digit of both.
    return None if found == wanted else told(found, wanted)


def told(found, wanted):
    return f"{str(found)[:300]!r} instead of {str(wanted)[:300]!r}"

"""What the record says must be where, for a state of the world.

Used by the judges. The state is a set of words:

    taken     tables and APIs took what they refuse otherwise
    repaired  broken messages were repaired and delivered again
    then      the consumers of refused events have run
"""

# What a call that is refused is answered, one attempt after the other.
REFUSALS = [400] * 3


class Expected:
    """Rows, messages in error queues, and calls with the answers that they get."""

    def __init__(self, record, state):
        self.state = set(state)
        self.rows, self.errors, self.calls = [], [], []
        self.messages = self.broken = 0
        for entry in record:
            self.messages += 1
            self.broken += entry["kind"] != "good"
            for outcome in entry["outcomes"]:
                self.add(entry, outcome, [])

    def add(self, entry, outcome, answered):
        """`answered`: what its calls were answered before."""
        self.rows += outcome.get("rows", [])
        if "call" in outcome:
            self.calls.append((entry, outcome, answered + outcome["call"]["answers"]))
        elif "search" in outcome:
            self.calls.append((entry, outcome, []))
        error = outcome.get("error")
        if error is not None:
            self.add_error(entry, outcome["queue"], error)

    def add_error(self, entry, queue, error):
        # A refused call was made at each attempt, before anything was mended.
        is_call = entry["kind"] == "refused" and "call" in (error["repaired"] or {})
        if "taken" in self.state and entry["kind"] == "refused":
            self.add(entry, error["repaired"], [])
        elif "repaired" in self.state:
            if error["repaired"] is not None:
                self.add(entry, error["repaired"], REFUSALS if is_call else [])
        else:
            if is_call:
                self.calls.append((entry, error["repaired"], REFUSALS))
            self.add_refused(entry, queue, error)

    def add_refused(self, entry, queue, error):
        then = error.get("then") if "then" in self.state else None
        if then is None:
            self.errors.append((entry, queue, error))
        elif "error" in then:
            # Its header names the queue that refused it first: there a replay goes.
            self.errors.append((entry, queue, then["error"]))
        else:
            self.rows += then["rows"]

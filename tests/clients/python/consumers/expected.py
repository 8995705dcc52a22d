"""What the record says must be where, for a state of the world.

Used by the judges. The state is a set of words:

    taken     tables and APIs took what they refuse otherwise
    repaired  broken messages were repaired and delivered again
    then      the consumers of refused events have run
"""


class Expected:
    """Rows, calls and messages in error queues."""

    def __init__(self, record, state):
        self.state = set(state)
        self.rows, self.errors, self.calls = [], [], []
        self.messages = self.broken = 0
        for entry in record:
            self.messages += 1
            self.broken += entry["kind"] != "good"
            for outcome in entry["outcomes"]:
                self.add(entry, outcome)

    def add(self, entry, outcome):
        self.rows += outcome.get("rows", [])
        if "call" in outcome or "search" in outcome:
            self.calls.append((entry, outcome, None))
        error = outcome.get("error")
        if error is None:
            return
        mended = "repaired" in self.state or ("taken" in self.state and entry["kind"] == "refused")
        if mended:
            if error["repaired"] is not None:
                self.add(entry, error["repaired"])
            return
        if entry["kind"] == "refused" and "call" in error["repaired"]:
            self.calls.append((entry, error["repaired"], error))
        then = error.get("then") if "then" in self.state else None
        if then is None:
            self.errors.append((entry, outcome["queue"], error))
        elif "error" in then:
            self.errors.append((entry, then["queue"], then["error"]))
        else:
            self.rows += then["rows"]

"""What is wrong with one record, so that a run can go on with another."""


class Fault(Exception):
    """One record cannot be used.

    Attributes:
        kind: a short slug by which faults are counted: `truncated_image`, `missing_file`, ...
        reason: one line that says what is wrong.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"

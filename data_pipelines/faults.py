"""What is wrong with one record, where the others may be right."""


class Fault(Exception):
    """One record cannot be used."""

    def __init__(self, kind: str, reason: str):
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

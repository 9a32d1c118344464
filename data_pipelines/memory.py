"""What this machine can hold, against what a file says that it grows to."""

import os

from data_pipelines.errors import InputError


def of_machine() -> int:
    """Bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def must_hold(nbytes: int, what: str) -> None:
    """Checked before anything is unpacked, since a small file can grow a thousandfold.

    Raises:
        InputError: it is more than the machine has.
    """
    if nbytes > (there := of_machine()):
        raise InputError(
            f"{what} grows to {nbytes / 1e9:,.1f} GB when it is unpacked; this machine has "
            f"{there / 1e9:,.1f} GB"
        )

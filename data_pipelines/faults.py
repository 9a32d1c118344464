"""What can be wrong with one record, and how it is told from what is wrong with the program."""

import contextlib
import dataclasses
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, UnidentifiedImageError

FEWEST = 500  # examples that a share of rejected records is a share of, at least


class Fault(Exception):
    """One record cannot be used.

    Attributes:
        kind: a short slug by which faults are counted: `truncated`, `missing_file`, ...
        reason: one line that says what is wrong.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Reject:
    """A record that was left out."""

    id: str | None  # None where it could not be read
    index: int  # its number in the source
    epoch: int
    position: int  # the place in the global order that another record took
    kind: str
    reason: str
    source: str | None = None  # which of a mixture's it is from


def fault_of(error: Exception) -> Fault | None:
    """The fault of a record behind what a source, a decoder or a transform raised for it.

    A record's own are: `Fault`; failures of files (OSError, EOFError); data of another form or
    value than a decoder expects (ValueError, KeyError for a missing field, zlib.error,
    struct.error, RuntimeError as C++ libraries raise it, Pillow's SyntaxError for broken PNGs);
    decompression bombs. All else (TypeError, AttributeError, IndexError, ImportError, a failed
    assert, no memory ...) is a mistake of the program: None, and the run stops at once. So does it
    at an InputError, which speaks of the config.
    """
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    match error:
        case Fault():
            return error
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return Fault("decompression_bomb", reason)
        case UnidentifiedImageError():
            return Fault("undecodable", reason)
        case FileNotFoundError():
            return Fault("missing_file", reason)
        case EOFError() | struct.error() | zlib.error():
            return Fault("truncated", reason)
        case OSError():
            return Fault("truncated" if "truncated" in reason else "unreadable", reason)
        case KeyError():
            return Fault("missing_field", f"there is no {reason}")
        case NotImplementedError() | RecursionError():
            return None
        case ValueError() | RuntimeError():
            return Fault("undecodable", reason)
        case SyntaxError(filename=None):
            return Fault("undecodable", reason)
    return None


@contextlib.contextmanager
def blamed_on_record() -> Iterator[None]:
    """What is the fault of a record is raised as `Fault`; anything else goes through."""
    try:
        yield
    except Exception as error:
        fault = fault_of(error)
        if fault is None or fault is error:
            raise
        raise fault from error


def bombs_are_errors() -> None:
    """A picture of more pixels than `PIL.Image.MAX_IMAGE_PIXELS` is refused; Pillow warns only, up
    to twice as many.
    """
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def too_many(rejected: int, examples: int, share: float) -> bool:
    """Whether more than `share` of the examples were rejected: of all so far, or of 500 where there
    were fewer, so that one bad record among the first ten stops no run.
    """
    return rejected > share * max(examples, FEWEST)


def by_kind(counts: Mapping[str, int]) -> str:
    """`3 truncated, 1 empty`: the most first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in ordered)


def size(value: Any) -> int:
    """Bytes of a raw value: of what it holds, where it holds others."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(size, value))
    return getattr(value, "nbytes", 0)

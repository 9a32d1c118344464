"""A compiled program's instructions, from its text."""

import math
import re
from typing import NamedTuple

BYTES = {"pred": 1, "token": 0, "opaque": 0, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5}


class Array(NamedTuple):
    """Attributes:
    main: whether it lies in main memory, not on the chip.
    """

    nbytes: float
    main: bool


class Instruction(NamedTuple):
    """`name = arrays op(inside), rest`.

    Attributes:
        arrays: of its result, several where that is a tuple.
        operands: names in its brackets.
        rest: attributes.
    """

    name: str
    arrays: list[Array]
    op: str
    inside: str
    operands: list[str]
    rest: str

    @property
    def nbytes(self) -> float:
        return sum(one.nbytes for one in self.arrays)

    @property
    def main_nbytes(self) -> float:
        return sum(one.nbytes for one in self.arrays if one.main)

    @property
    def number(self) -> int:
        """Of a parameter, of an integer constant, or of the entry of a tuple that it takes."""
        return int(self.attribute("index") if self.op == "get-tuple-element" else self.inside)

    def attribute(self, name: str) -> str:
        """A number or name among the attributes; "": it is not there."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


class Computation(NamedTuple):
    instructions: list[Instruction]
    root: Instruction


def computations(text: str) -> tuple[dict[str, Computation], str]:
    """Name -> computation; and which of them is the program.

    Raises:
        ValueError: this is no program.
    """
    found: dict[str, list[Instruction]] = {}
    roots: dict[str, Instruction] = {}
    entry = inside = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            inside = head["name"]
            found[inside] = []
            if head["entry"]:
                entry = inside
        elif inside and (made := _instruction(line)):
            found[inside].append(made)
            if line.lstrip().startswith("ROOT "):
                roots[inside] = made
    if not entry:
        raise ValueError("this is no program: it has no ENTRY")
    return {name: Computation(each, roots[name]) for name, each in found.items()}, entry


_HEAD = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*->.*\{\s*$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")


def _instruction(line: str) -> Instruction | None:
    found = _LINE.match(line)
    if not found:
        return None
    text = found["rest"]
    if text.startswith("("):
        end = _closing(text, 0) + 1
    else:
        end = text.index(" ")
    shape, text = text[:end], text[end:].lstrip()
    op, _, _ = text.partition("(")
    close = _closing(text, len(op))
    inside = text[len(op) + 1 : close]
    operands = re.findall(r"%([\w.\-]+)", inside)
    return Instruction(found["name"], _arrays(shape), op, inside, operands, text[close + 1 :])


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"an open bracket in {text[:80]!r}")


def _arrays(shape: str) -> list[Array]:
    """Of an array or a tuple, as the program writes it."""
    made = []
    for kind, dims, layout in _ARRAY.findall(shape):
        sizes = [int(size.lstrip("<=")) for size in dims.split(",") if size]
        nbytes = math.prod(sizes) * _itemsize(kind)
        made.append(Array(nbytes, main=not _ON_CHIP.search(layout)))
    return made


def _itemsize(kind: str) -> float:
    if kind in BYTES:
        return BYTES[kind]
    bits = re.search(r"\d+", kind)
    return int(bits[0]) / 8 if bits else 0

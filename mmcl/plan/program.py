"""What a compiled program moves: read from its text, loops counted as often as they run.

XLA's own cost analysis counts the body of a loop once; here a `while` counts as often as the
compiler knows that it runs.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

BYTES = {"pred": 1, "token": 0, "opaque": 0, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5}
KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
    "collective-permute",
)
CONTROL = ("while", "call", "conditional", "async-start")  # which run other computations
NOTHING = (  # which move nothing, or nothing themselves
    *CONTROL,
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier"),
)
CALLED = ("body", "to_apply", "calls", "true_computation", "false_computation")


class Instruction(NamedTuple):
    name: str
    nbytes: float  # of its result
    op: str
    operands: list[str]
    rest: str  # attributes


class Collective(NamedTuple):
    """One, as often as it happens in a step.

    Attributes:
        link_bytes: that one device sends in all of them, by the ring algorithm.
        groups: device numbers that take part together; of a permute, pairs.
    """

    kind: str
    times: int
    link_bytes: float
    groups: list[list[int]]


class Program:
    """A compiled program, from `compiled.as_text()`."""

    def __init__(self, text: str):
        self._computations: dict[str, list[Instruction]] = {}
        self._nbytes: dict[str, float] = {}
        self._entry = ""
        current: list[Instruction] = []
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self._computations.setdefault(head["name"], [])
                if head["entry"]:
                    self._entry = head["name"]
            elif made := _instruction(line):
                current.append(made)
                self._nbytes[made.name] = made.nbytes
        if not self._entry:
            raise ValueError("this is no program: it has no ENTRY")

    def collectives(self) -> list[Collective]:
        """Every collective of the program."""
        return [
            _collective(one, times, self._operand_bytes(one))
            for one, times in self._run(self._entry, 1, into_fusions=True)
            if _kind(one.op) is not None
        ]

    def moved_bytes(self) -> float:
        """What operations read from memory and write to it, each by itself, a fusion as one."""
        return sum(
            times * (one.nbytes + self._operand_bytes(one))
            for one, times in self._run(self._entry, 1, into_fusions=False)
            if one.op not in NOTHING and not one.op.endswith("-done")
        )

    def _operand_bytes(self, one: Instruction) -> float:
        return sum(self._nbytes.get(name, 0.0) for name in one.operands)

    def _run(
        self, computation: str, times: int, into_fusions: bool
    ) -> Iterator[tuple[Instruction, int]]:
        """Every instruction, and how often it runs."""
        for one in self._computations[computation]:
            yield one, times
            if one.op in CONTROL or (into_fusions and one.op == "fusion"):
                inside = times * _trips(one) if one.op == "while" else times
                for name in _called(one):
                    yield from self._run(name, inside, into_fusions)


def by_kind(collectives: Sequence[Collective]) -> dict[str, float]:
    """Kind -> bytes that one device sends."""
    found: dict[str, float] = {}
    for one in collectives:
        found[one.kind] = found.get(one.kind, 0.0) + one.link_bytes
    return found


def crosses(one: Collective, part: Mapping[int, int]) -> bool:
    """Whether devices of different parts (slices, machines) take part together."""
    return any(len({part[device] for device in group}) > 1 for group in one.groups)


def _collective(one: Instruction, times: int, operand_bytes: float) -> Collective:
    kind = _kind(one.op)
    assert kind is not None
    groups = _groups(one.rest)
    n = max((len(group) for group in groups), default=1)
    whole = max(one.nbytes - operand_bytes, 0) if one.op.endswith("-start") else one.nbytes
    share = (n - 1) / n
    sent = {
        "all-gather": whole * share,
        "all-reduce": 2 * operand_bytes * share,
        "reduce-scatter": operand_bytes * share,
        "collective-permute": operand_bytes,
        "collective-broadcast": operand_bytes,
    }.get(kind, operand_bytes * share)
    return Collective(kind, times, times * sent, groups)


_HEAD = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*->.*\{\s*$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\]")


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
    operands = re.findall(r"%([\w.\-]+)", text[len(op) : close])
    return Instruction(found["name"], _nbytes(shape), op, operands, text[close + 1 :])


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"an open bracket in {text[:80]!r}")


def _nbytes(shape: str) -> float:
    """Of an array or a tuple, as the program writes it."""
    total = 0.0
    for kind, dims in _ARRAY.findall(shape):
        sizes = [int(size.lstrip("<=")) for size in dims.split(",") if size]
        total += math.prod(sizes) * _itemsize(kind)
    return total


def _itemsize(kind: str) -> float:
    if kind in BYTES:
        return BYTES[kind]
    bits = re.search(r"\d+", kind)
    return int(bits[0]) / 8 if bits else 0


def _kind(op: str) -> str | None:
    """Which collective an operation is, or begins."""
    base = op.removesuffix("-start")
    return base if base in KINDS else None


def _trips(one: Instruction) -> int:
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest)
    return int(known[1]) if known else 1


def _called(one: Instruction) -> list[str]:
    names = [
        name
        for attribute in CALLED
        for name in re.findall(rf"\b{attribute}=%?([\w.\-]+)", one.rest)
    ]
    branches = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
    return names + (re.findall(r"%?([\w.\-]+)", branches[1]) if branches else [])


def _groups(rest: str) -> list[list[int]]:
    """Which devices take part together."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", rest):
        return [[int(a), int(b)] for a, b in re.findall(r"(\d+),(\d+)", pairs[1])]
    if iota := re.search(rf"replica_groups=\[([\d,]+)\]<={_IOTA}", rest):
        count = int(iota[1].split(",")[0])
        return _lists(_iota(iota[2], iota[3]).reshape(count, -1))
    if named := _NAMED.search(rest):
        return _lists(_along(named["mesh"], named["axes"], named["order"]))
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", rest):
        groups = re.findall(r"\{([\d,]*)\}", listed[1])
        return [[int(i) for i in group.split(",") if i] for group in groups]
    return []


_IOTA = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
_NAMED = re.compile(
    r"replica_groups=mesh\[(?P<mesh>[^\]]*)\](?:, device_ids=\((?P<order>.*?)\)(?= ?\{))? ?"
    r"\{(?P<axes>[^}]*)\}"
)


def _iota(dims: str, turned: str | None) -> np.ndarray:
    """All numbers from 0 on, in the shape and order of axes that `[dims]T(turned)` means."""
    ids = np.arange(math.prod(_ints(dims))).reshape(_ints(dims))
    return ids.transpose(_ints(turned)) if turned else ids


def _along(mesh: str, axes: str, order: str | None) -> np.ndarray:
    """Groups along the axes of a mesh, `'a'=2,'b'=4` and `'b'`, or a part of one, `'b':(2)2`: of
    the 4, after the first 2, the next 2.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    total = math.prod(sizes.values())
    ids = np.arange(total)
    if order and (iota := re.fullmatch(_IOTA, order)):
        ids = _iota(iota[1], iota[2]).ravel()
    elif order:
        ids = np.array(_ints(order))
    shape: list[int] = []
    inside: list[int] = []  # axes of `shape` along which groups lie
    for name, size in sizes.items():
        part = re.search(rf"'{name}'(?::\((\d+)\)(\d+))?", axes)
        before, taken = (int(part[1]), int(part[2])) if part and part[1] else (1, size)
        if part:
            inside.append(len(shape) + 1)
        shape += [before, taken, size // before // taken]
    outside = [i for i in range(len(shape)) if i not in inside]
    grid = ids.reshape(shape).transpose(*outside, *inside)
    return grid.reshape(-1, math.prod(shape[i] for i in inside))


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _lists(groups: np.ndarray) -> list[list[int]]:
    return [[int(i) for i in group] for group in groups]

"""What a compiled program moves: read from its text, loops counted as often as they run.

XLA's own cost analysis counts the body of a loop once; here a `while` counts as often as the
compiler knows that it runs.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmcl.plan.instructions import Instruction, computations

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
CUTS = ("slice", "dynamic-slice", "gather")  # read what comes out of them
IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}  # write their operand of this number
CALLED = ("body", "to_apply", "calls", "true_computation", "false_computation")


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
        self._computations, self._entry = computations(text)
        self._named: dict[str, Instruction] = {}
        self._users: dict[str, list[tuple[Instruction, int]]] = {}  # and which operand it is there
        for computation in self._computations.values():
            for one in computation.instructions:
                self._named[one.name] = one
                for place, name in enumerate(one.operands):
                    self._users.setdefault(name, []).append((one, place))
        fusions = [one for one in self._named.values() if one.op == "fusion"]
        within = [self._computations[one.attribute("calls")] for one in fusions]
        self._fused = {one.name for each in within for one in each.instructions}

    def collectives(self) -> list[Collective]:
        """Every collective of the program. One that goes on while others compute is written into
        the fusions of all of these, with its channel, and happens once.
        """
        made: list[Collective] = []
        on_channel: dict[str, Collective] = {}
        for one, times in self._run(self._entry, 1, into_fusions=True):
            if _kind(one.op) is None:
                continue
            operand_bytes = sum(operand.nbytes for operand in self._operands(one))
            found = _collective(one, times, operand_bytes)
            channel = one.attribute("channel_id")
            if one.name not in self._fused or not channel:
                made.append(found)
            elif channel not in on_channel or times < on_channel[channel].times:
                on_channel[channel] = found
        return made + list(on_channel.values())

    def moved_bytes(self) -> float:
        """What operations read from main memory and write to it, each by itself, a fusion as one;
        of an array that is cut up, what is cut out of it.
        """
        return sum(
            times * (self._written(one) + sum(self._read(one, i) for i in range(len(one.operands))))
            for one, times in self._run(self._entry, 1, into_fusions=False)
            if one.op not in NOTHING and not one.op.endswith("-done")
        )

    def _operands(self, one: Instruction) -> list[Instruction]:
        return [self._named[name] for name in one.operands if name in self._named]

    def _read(self, one: Instruction, place: int) -> float:
        """Bytes of main memory that are read of an operand."""
        operand = self._named[one.operands[place]]
        if place == 0 and one.op in CUTS:
            return one.nbytes if operand.main_nbytes else 0
        if place == 0 and one.op == "slice-start":
            return one.arrays[1].nbytes if operand.main_nbytes else 0
        if place == 0 and one.op in IN_PLACE:
            return 0
        if one.op != "fusion":
            return operand.main_nbytes
        inside = self._computations[one.attribute("calls")].instructions
        parameter = next(p for p in inside if p.op == "parameter" and p.number == place)
        return min(operand.main_nbytes, self._used(parameter))

    def _used(self, one: Instruction) -> float:
        """Bytes that are read inside a fusion of what comes into it."""
        return sum(
            self._used(user) if user.op == "bitcast" else self._read(user, place)
            for user, place in self._users.get(one.name, [])
        )

    def _written(self, one: Instruction) -> float:
        """Bytes of main memory that are written."""
        if not one.main_nbytes or 'custom_call_target="AllocateBuffer"' in one.rest:
            return 0
        if one.op in IN_PLACE:
            return self._named[one.operands[IN_PLACE[one.op]]].nbytes
        if one.op == "slice-start":
            return sum(array.nbytes for array in one.arrays[1:2] if array.main)
        if one.op.endswith("-start"):  # the operands are there once more
            return max(0, one.main_nbytes - sum(x.main_nbytes for x in self._operands(one)))
        if one.op != "fusion":
            return one.main_nbytes
        root = self._computations[one.attribute("calls")].root
        return min(one.main_nbytes, self._made(root))

    def _made(self, root: Instruction) -> float:
        """Bytes that a fusion writes."""
        if root.op == "tuple":
            return sum(map(self._made, self._operands(root)))
        if root.op == "bitcast":
            return self._made(self._operands(root)[0])
        return self._written(root)

    def _run(
        self, computation: str, times: int, into_fusions: bool
    ) -> Iterator[tuple[Instruction, int]]:
        """Every instruction, and how often it runs."""
        for one in self._computations[computation].instructions:
            yield one, times
            if one.op in CONTROL or (into_fusions and one.op == "fusion"):
                inside = times * self._trips(one) if one.op == "while" else times
                for name in _called(one):
                    yield from self._run(name, inside, into_fusions)

    def _trips(self, loop: Instruction) -> int:
        """How often a loop runs: as the compiler notes, or as its counter, bound and step say; 1
        where that hangs on the data.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(known[1])
        goes_on = self._alone(self._computations[loop.attribute("condition")].root)
        after = self._computations[loop.attribute("body")].root
        (state,) = self._operands(loop)
        if goes_on.attribute("direction") != "LT" or state.op != "tuple" or after.op != "tuple":
            return 1
        counter, bound = self._operands(goes_on)
        if counter.op != "get-tuple-element":
            return 1
        carried = bound.op == "get-tuple-element"
        first = self._constant(state.operands[counter.number])
        last = self._constant(state.operands[bound.number] if carried else bound.name)
        step = self._added(after.operands[counter.number])
        if first is None or last is None or step == 0:
            return 1
        return max(0, math.ceil((last - first) / step))

    def _alone(self, one: Instruction) -> Instruction:
        """What a fusion of one operation does to the fusion's operands."""
        if one.op != "fusion":
            return one
        root = self._computations[one.attribute("calls")].root
        inside = self._operands(root)
        names = [one.operands[x.number] if x.op == "parameter" else x.name for x in inside]
        return root._replace(operands=names)

    def _constant(self, name: str) -> int | None:
        one = self._named[name]
        while one.op in ("copy", "bitcast"):
            (one,) = self._operands(one)
        return one.number if one.op == "constant" else None

    def _added(self, name: str) -> int:
        """What a round of a loop adds to its counter; 0: that is not to be seen."""
        one, added = self._alone(self._named[name]), 0
        while one.op in ("add", "copy", "bitcast"):
            operands = self._operands(one)
            added += sum(each.number for each in operands if each.op == "constant")
            changed = [each for each in operands if each.op != "constant"]
            if len(changed) != 1:
                return 0
            one = self._alone(changed[0])
        return added


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


def _kind(op: str) -> str | None:
    """Which collective an operation is, or begins."""
    base = op.removesuffix("-start")
    return base if base in KINDS else None


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

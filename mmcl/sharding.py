"""Which arrays of the training state are shared out over the mesh, and how: rules on their names.

An array's name is its path in the state: `params/image/encoder/blocks_0/up/kernel`, and the same
after `ema/` and, with what the optimiser puts before it, after `optimizer/`. A rule is (regex,
axes): the regex is searched in the name, and `axes` says for each dimension over which axis of the
mesh it is cut: one, several, or None. The first rule that matches, and has as many dimensions,
holds. Of what no rule matches, the objective's memory is cut as batches are; matrices over `fsdp`,
along the longest dimension that divides; vectors are whole on every device.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec

from data_pipelines.errors import InputError
from mmcl.array_names import array_names
from mmcl.mesh import AnyMesh, batch_axes
from pallas_kernels.pair_reduce.layout import BATCH_AXES

Axes = tuple[str, ...]  # over which one dimension is cut; () for none
Rule = tuple[str, tuple[Axes, ...]]  # (regex, axes of each dimension)

# Columns of a block's first product and rows of its second stay on one device, so that nothing is
# sent between the two (Shoeybi et al. 2019, Megatron-LM).
RULES: tuple[Rule, ...] = (
    (r"/(qkv|up)/kernel$", (("fsdp",), ("tensor",))),
    (r"/(qkv|up)/bias$", (("tensor",),)),
    (r"/(out|down)/kernel$", (("tensor",), ("fsdp",))),
    (r"/embedding$", (("tensor",), ("fsdp",))),
)


class Placed(NamedTuple):
    """One array of the state."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[Axes, ...]  # of each dimension
    nbytes: int
    device_nbytes: int  # on one device


def placements(state: Any, mesh: AnyMesh, rules: Sequence[Any] = ()) -> Any:
    """Where every array of a state belongs: a pytree of `Placed` like it.

    Args:
        state: arrays, or their shapes and dtypes.
        rules: those of the config, which come before `RULES`.

    Raises:
        InputError: a rule is none, names an axis that there cannot be, matches nothing, or does
            not divide an array.
    """
    own = [_rule(rule, f"config.sharding.{i}") for i, rule in enumerate(rules)]
    names = array_names(state)
    for i, (regex, axes) in enumerate(own):
        matched = zip(*map(jax.tree.leaves, (names, state)), strict=True)
        if not any(re.search(regex, name) and x.ndim == len(axes) for name, x in matched):
            raise InputError(
                f"config.sharding.{i}: '{regex}' matches no array of {len(axes)} dimensions; "
                "`mmcl inspect` lists them."
            )
    return jax.tree.map(lambda name, x: _placed(name, x, mesh, own), names, state)


def shardings(placed: Any, mesh: AnyMesh) -> Any:
    """The same as jax's shardings."""
    return jax.tree.map(
        lambda one: NamedSharding(mesh, PartitionSpec(*(axes or None for axes in one.axes))),
        placed,
        is_leaf=lambda one: isinstance(one, Placed),
    )


def _placed(name: str, x: Any, mesh: AnyMesh, own: Sequence[Rule]) -> Placed:
    shape = tuple(x.shape)
    rule = next((rule for rule in [*own, *RULES] if _matches(rule, name, x)), None)
    wanted = rule[1] if rule else _without_rule(name, shape, mesh)
    for d, (size, axes) in enumerate(zip(shape, wanted)):
        if rule in own and size % _devices(axes, mesh):
            raise InputError(
                f"config.sharding.{own.index(rule)}: dimension {d} of {name} is {size}, which does "
                f"not divide over the {_devices(axes, mesh)} devices of {' × '.join(axes)}."
            )
    cut = tuple(_fitting(size, axes, mesh) for size, axes in zip(shape, wanted))
    nbytes = math.prod(shape) * x.dtype.itemsize
    parts = math.prod(_devices(axes, mesh) for axes in cut)
    return Placed(name, shape, str(x.dtype), cut, nbytes, nbytes // parts)


def _without_rule(name: str, shape: tuple[int, ...], mesh: AnyMesh) -> tuple[Axes, ...]:
    if name.startswith("objective/"):
        return (batch_axes(mesh), *[()] * (len(shape) - 1))[: len(shape)]
    sizes = [size for size in shape if _fitting(size, ("fsdp",), mesh)]
    longest = shape.index(max(sizes)) if sizes and len(shape) > 1 else None
    return tuple(("fsdp",) if d == longest else () for d in range(len(shape)))


def _fitting(size: int, axes: Axes, mesh: AnyMesh) -> Axes:
    """Those of the axes that the mesh has; none where they do not divide the dimension."""
    there = tuple(axis for axis in axes if axis in mesh.axis_names)
    return () if size % _devices(there, mesh) else there


def _devices(axes: Axes, mesh: AnyMesh) -> int:
    return math.prod(mesh.shape.get(axis, 1) for axis in axes)


def _matches(rule: Rule, name: str, x: Any) -> bool:
    regex, axes = rule
    return len(axes) == x.ndim and re.search(regex, name) is not None


def _rule(given: Any, where: str) -> Rule:
    match given:
        case [str(regex), list() | tuple() as wanted]:
            axes = tuple(_axes(want) for want in wanted)
        case _:
            raise InputError(
                f"{where}: {given!r} is not a rule; write [regex, [axis or None, ...]], as in "
                '["embed/embedding$", [None, "fsdp"]].'
            )
    known = (*BATCH_AXES, "tensor")
    for axis in (axis for listed in axes for axis in listed):
        if axis not in known:
            raise InputError(f"{where}: there is no axis '{axis}'; there are {', '.join(known)}.")
    try:
        re.compile(regex)
    except re.error as error:
        raise InputError(f"{where}: '{regex}' is not a regex: {error}.") from None
    return regex, axes


def _axes(want: Any) -> Axes:
    return (want,) if isinstance(want, str) else tuple(want or ())

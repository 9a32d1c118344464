"""How the two sides of the grid lie on the devices of a mesh."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
from jax.sharding import AxisType, PartitionSpec

Comm = Literal["ring", "gather", "hierarchical", "fused"]
BATCH_AXES = ("slice", "data", "fsdp")  # what a batch is split over where nobody says otherwise


class Layout(NamedTuple):
    """How the two sides lie on the devices. Static.

    Attributes:
        axes: mesh axes over which both sides are split, slowest first; () for one device.
        sizes: their sizes.
        inside: True inside a caller's shard_map, where arrays are this device's already.
        comm: who sends what; None on one device.
    """

    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    inside: bool
    comm: Comm | None

    @property
    def devices(self) -> int:
        return math.prod(self.sizes)

    @property
    def split(self) -> PartitionSpec:
        """Leading axis split over the devices."""
        return PartitionSpec(self.axes)

    def run(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Any:
        """`function` of this device's parts, as a function of whole arrays."""
        if self.inside or not self.axes:
            return function

        def run(*args: Any) -> Any:
            mapped = jax.shard_map(
                function,
                in_specs=in_specs,
                out_specs=out_specs,
                axis_names=set(self.axes),
                check_vma=typed(args),  # as in the shard_map around this one
            )
            return mapped(*args)

        return run


def layout_of(
    mesh_axes: str | Sequence[str] | None, comm: Comm | None, sizes: Mapping[str, int]
) -> Layout:
    """The layout that a call asks for, on the mesh of the context (`jax.set_mesh`).

    Args:
        mesh_axes: the axes over which both sides are split. None: those of the mesh that are named
            in BATCH_AXES; inside a `shard_map` none, for there a side may be the device's own.
        comm: None: hierarchical over several axes of which the first is `slice`, else a ring.
        sizes: argument -> its leading size.

    Raises:
        ValueError: an axis that the mesh does not have, or that is of another kind than the
            others; a size that does not divide; an unknown comm.
    """
    if comm is not None and comm not in get_args(Comm):
        raise ValueError(f"comm: unknown {comm!r}; {get_args(Comm)}")
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types))
    if mesh_axes is None:
        axes = tuple(a for a in BATCH_AXES if a in kinds and kinds[a] != AxisType.Manual)
    else:
        axes = (mesh_axes,) if isinstance(mesh_axes, str) else tuple(mesh_axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"mesh_axes: {axes} name an axis twice")
    for axis in axes:
        if axis not in kinds:
            there = f"only {mesh.axis_names}" if kinds else "no mesh: call it under jax.set_mesh"
            raise ValueError(f"mesh_axes: there is no axis {axis!r}; there is {there}")
        if kinds[axis] == AxisType.Explicit:
            raise ValueError(
                f"mesh_axes: {axis!r} is an Explicit axis; make the mesh with axis_types Auto"
            )
    manual = {kinds[axis] == AxisType.Manual for axis in axes}
    if len(manual) > 1:
        raise ValueError(f"mesh_axes: of {axes} some are inside a shard_map and some are not")
    inside = manual == {True}
    counts = tuple(mesh.shape[axis] for axis in axes)
    devices = math.prod(counts)
    if devices == 1 and not inside:
        return Layout((), (), False, None)
    for argument, size in sizes.items():
        if not inside and size % devices:
            raise ValueError(
                f"{argument}: {size} do not divide over the {devices} devices of mesh_axes {axes};"
                " pad them, or pass mesh_axes=() to keep them on every device"
            )
    if comm == "fused" and axes[0] == "slice" and counts[0] > 1:
        raise ValueError('comm: "fused" does not go between slices; "hierarchical" does')
    if comm is None:
        comm = "hierarchical" if len(axes) > 1 and axes[0] == "slice" else "ring"
    return Layout(axes, counts, inside, comm)


def varying(layout: Layout, like: Any, tree: Any) -> Any:
    """`tree` typed as differing between devices as `like` does, inside a caller's shard_map."""
    axes = set(layout.axes if layout.inside else ()).union(
        *map(_varies_over, jax.tree.leaves(like))
    )

    def one(x: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - _varies_over(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(one, tree)


def shared_cotangent(layout: Layout, like: Any, tree: Any) -> Any:
    """The cotangent of a value that all devices have: inside a shard_map the sum of their shares.

    Args:
        like: arrays that differ between devices. Where their types say so (check_vma), a cotangent
            whose type says that it does not differ is whole already.
    """
    if not layout.inside:
        return tree

    def one(x: jax.Array) -> jax.Array:
        axes = tuple(a for a in layout.axes if not typed(like) or a in _varies_over(x))
        return jax.lax.psum(x, axes) if axes else x

    return jax.tree.map(one, tree)


def shape_like(shape: tuple[int, ...], dtype: Any, like: Any) -> jax.ShapeDtypeStruct:
    """A shape, typed as differing between devices where any of the arrays `like` does."""
    axes = frozenset().union(*map(_varies_over, jax.tree.leaves(like)))
    kind = jax.sharding.ManualAxisType(varying=axes)
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=kind)


def typed(tree: Any) -> bool:
    """Whether types say of any array that it differs between devices (check_vma)."""
    return any(map(_varies_over, jax.tree.leaves(tree)))


def _varies_over(x: Any) -> frozenset[str]:
    return jax.typeof(x).manual_axis_type.varying

"""Which devices stand where, and which examples of a batch are whose."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.mesh import Axes, batch_devices, make_mesh, places, sizes, split_batch


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (Axes(), {"data": 8}),
        (Axes(fsdp=4), {"data": 2, "fsdp": 4}),
        (Axes(data=1, fsdp=-1), {"data": 1, "fsdp": 8}),
        (Axes(slice=2, data=2, fsdp=2), {"slice": 2, "data": 2, "fsdp": 2}),
        (Axes(fsdp=2, tensor=2), {"data": 2, "fsdp": 2, "tensor": 2}),
    ],
)
def test_axes_of_one_device_are_left_out_but_data(axes, shape):
    mesh = make_mesh(axes)
    assert dict(mesh.shape) == shape
    assert batch_devices(mesh) == 8 // shape.get("tensor", 1)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (Axes(fsdp=3), r"3 \(data -1 × fsdp 3\) does not divide 8 devices"),
        (Axes(data=2, fsdp=2), r"data 2 × fsdp 2 is 4 devices and there are 8"),
        (Axes(fsdp=-1), r"data and fsdp are both -1"),
        (Axes(tensor=0), r"config\.mesh\.tensor: 0 should be 1 or more"),
    ],
)
def test_what_does_not_come_out_even_is_refused(axes, said):
    with pytest.raises(InputError, match=said):
        make_mesh(axes)


def test_devices_in_slices_are_told_from_each_other():
    """Devices of a pod of two slices, of which jax tells the slice."""
    devices = [SimpleNamespace(slice_index=i // 4, id=i, platform="tpu") for i in range(8)]
    with pytest.raises(
        InputError, match=r"config\.mesh\.slice: 1, but the devices are in 2 slices"
    ):
        make_mesh(Axes(), devices)
    assert sizes(Axes(slice=2, fsdp=2), 8) == {"slice": 2, "data": 2, "fsdp": 2, "tensor": 1}


def test_a_batch_is_split_over_all_axes_but_tensor():
    mesh = make_mesh(Axes(slice=2, fsdp=2, tensor=2))
    x = split_batch({"x": np.arange(8.0)[:, None]}, mesh)["x"]
    by_device = {s.device.id: s.data.ravel().tolist() for s in x.addressable_shards}
    order = [device.id for device in mesh.devices.ravel()]
    assert [by_device[i] for i in order[::2]] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [by_device[i] for i in order[1::2]] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_process_needs_the_places_of_its_own_devices(monkeypatch):
    """As on a pod, where a process's devices need not be neighbours on the mesh."""
    mesh = make_mesh(Axes(fsdp=2, tensor=2))
    assert places(mesh, 16) == list(range(16))
    flat = mesh.devices.reshape(4, 2)
    mine = {*flat[1], *flat[3]}
    monkeypatch.setattr(
        jax.sharding.NamedSharding,
        "addressable_devices_indices_map",
        lambda self, shape: {d: i for d, i in self.devices_indices_map(shape).items() if d in mine},
    )
    assert places(mesh, 16) == [4, 5, 6, 7, 12, 13, 14, 15]

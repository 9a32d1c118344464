"""Checkpoints: what comes back is what was there when saving began, to the bit."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.errors import InputError
from mmcl.checkpoint import Checkpoints, check_sound, newest_sound, put_aside
from mmcl.mesh import data_mesh, replicate
from mmcl.state import TrainState
from mmcl.workdir import newest_step, saved_steps


def mesh(devices: int) -> Mesh:
    return data_mesh(jax.devices()[:devices])


def make_state(devices: int, seed: int = 0, width: int = 40) -> TrainState:
    """A state with everything that one may hold, its table split over the devices."""
    rng = np.random.default_rng(seed)
    params = {
        "image": {"kernel": rng.normal(size=(50, width)).astype(np.float32)},
        "text": {"scale": jnp.asarray(rng.normal(size=7), jnp.bfloat16)},
        "objective": {"logit_scale": np.float32(rng.normal())},
    }
    state = TrainState(
        step=jnp.int32(seed),
        params=params,
        optimizer=optax.adamw(1e-3).init(params),
        objective=None,
        ema=None,
        key=jax.random.key(seed),
    )
    table = jnp.asarray(rng.integers(0, 99, (64, 3)), jnp.int8)
    split = NamedSharding(mesh(devices), PartitionSpec("data"))
    placed: TrainState = replicate(state, mesh(devices))
    return placed._replace(objective={"seen": jax.device_put(table, split)})


def bits(tree: Any) -> list[np.ndarray]:
    """Copies of all leaves as bytes."""

    def leaf(x: jax.Array) -> np.ndarray:
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return np.array(x, copy=True).reshape(-1).view(np.uint8)

    return [leaf(x) for x in jax.tree.leaves(tree)]


def layout(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)


def assert_same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with checkpoints of steps 2 and 4, written on eight devices."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder)
    for step in (2, 4):
        state = make_state(8, seed=step)
        checkpoints.save(step, state, {"step": step, "stage": 1}, {"seconds": 1.5 * step})
    checkpoints.close()
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "run")


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_all_comes_back_on_any_number_of_devices(saved: Path, devices: int) -> None:
    like = make_state(devices)
    checkpoints = Checkpoints(saved)
    for step in (2, 4):
        want = make_state(devices, seed=step)
        restored = checkpoints.restore(like, step)
        assert restored.data == {"step": step, "stage": 1}
        assert restored.clock == {"seconds": 1.5 * step}
        assert layout(restored.state) == layout(like)
        assert_same_bits(bits(restored.state), bits(want))
        assert jax.random.uniform(restored.state.key) == jax.random.uniform(want.key)
    checkpoints.close()


@pytest.mark.parametrize("devices", [1, 8])
def test_a_state_that_is_used_up_while_it_is_saved(tmp_path: Path, devices: int) -> None:
    """Steps overwrite the buffers of the state that they are given as soon as saving has begun."""

    def negate(x: jax.Array) -> jax.Array:
        return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else -x - 1

    step = jax.jit(lambda state: jax.tree.map(negate, state), donate_argnums=0)
    step(make_state(devices, width=4000))  # compiled before anything is saved
    checkpoints = Checkpoints(tmp_path, keep=4)
    state = make_state(devices, seed=5, width=4000)
    want = {}
    for number in (1, 2, 3):
        state = step(state)
        want[number] = bits(state)
        checkpoints.save(number, state, {}, {})
        for _ in range(5):
            state = step(state)
    jax.block_until_ready(state)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=4)
    for number, leaves in want.items():
        assert_same_bits(bits(checkpoints.restore(state, number).state), leaves)
    checkpoints.close()


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for step in range(1, 5):
        checkpoints.save(step, make_state(1), {}, {})
    checkpoints.close()
    left = sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir())
    assert left == [1, 2, 3, 4][-keep:]


def steps_left(folder: Path) -> list[int]:
    return sorted(int(one.name) for one in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("sign", ["", "-"])
def test_every_so_many_and_the_best_are_kept_beside_the_newest(tmp_path: Path, sign: str) -> None:
    """Values by step; a checkpoint without an evaluation, or of NaN, is never the best. In between
    the run is stopped and goes on.
    """
    flip = -1.0 if sign else 1.0
    values = {1: 0.1, 2: 0.7, 3: None, 4: float("nan"), 5: 0.3, 6: 0.7, 7: 0.2, 8: None}
    kept = {1: [1], 2: [1, 2][-1:], 3: [2, 3], 4: [2, 4], 5: [2, 4, 5], 6: [4, 6], 7: [4, 6, 7],
            8: [4, 6, 8]}  # fmt: skip
    better = [step for step in values if step in (1, 2)]
    found = []
    for step, value in values.items():
        checkpoints = Checkpoints(tmp_path, keep=1, keep_every=4, best=f"{sign}eval/a/x")
        metrics = None if value is None else {"eval/a/x": flip * value, "hardware": "cpu"}
        if metrics and checkpoints.is_best(metrics):
            found.append(step)
        checkpoints.save(step, make_state(1), {}, {}, metrics)
        assert not metrics or not checkpoints.is_best(metrics)  # before it is on disk
        checkpoints.close()
        assert steps_left(tmp_path) == kept[step], step
    assert found == better
    checkpoints = Checkpoints(tmp_path, best=f"{sign}eval/a/x")
    assert checkpoints.best_step() == 6  # of equals the newest
    checkpoints.close()


def test_a_best_that_nobody_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.checkpoint\.best"):
        Checkpoints(tmp_path).best_step()
    checkpoints = Checkpoints(tmp_path, best="-eval/a/median_rnk")
    checkpoints.save(1, make_state(1), {}, {})
    with pytest.raises(InputError, match="'eval/a/median_rnk' yet"):
        checkpoints.best_step()
    with pytest.raises(InputError, match="Did you mean 'eval/a/median_rank'") as raised:
        checkpoints.check_best({"step": 1, "eval/a/median_rank": 2.0})
    assert "\n" not in str(raised.value)
    assert newest_step(tmp_path) == 1


def test_what_a_kill_left_half_written_is_no_checkpoint(copied: Path) -> None:
    folder = copied / "checkpoints"
    shutil.copytree(folder / "4", folder / "6.orbax-checkpoint-tmp")
    assert newest_step(copied) == 4
    checkpoints = Checkpoints(copied)
    checkpoints.save(6, make_state(1, seed=6), {}, {})
    checkpoints.close()
    assert newest_step(copied) == 6
    checkpoints = Checkpoints(copied)
    restored = checkpoints.restore(make_state(1), 6).state
    checkpoints.close()
    assert_same_bits(bits(restored), bits(make_state(1, seed=6)))


def damages(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files that a checkpoint cannot do without."""
    yield "arrays", next(folder.glob("state/d/*"))
    yield "names", folder / "state" / "_METADATA"
    yield "index", folder / "state" / "manifest.ocdbt"
    yield "data", folder / "data" / "metadata"
    yield "clock", folder / "clock" / "metadata"


@pytest.mark.parametrize("what", ["arrays", "names", "index", "data", "clock"])
@pytest.mark.parametrize("how", ["empty", "half", "noise", "gone"])
def test_a_damaged_checkpoint_is_refused(copied: Path, what: str, how: str) -> None:
    file = dict(damages(copied / "checkpoints" / "4"))[what]
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        noise = np.random.default_rng(0).bytes(len(content))
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": noise}[how])
    checkpoints = Checkpoints(copied)
    with pytest.raises(InputError, match=r"checkpoints/4 ") as raised:
        check_sound(copied, 4)
    assert "\n" not in str(raised.value)
    check_sound(copied, 2)
    assert checkpoints.restore(make_state(1), 2).data["step"] == 2
    checkpoints.close()


def test_the_newest_that_is_sound(copied: Path) -> None:
    told: list[str] = []
    assert newest_sound(copied, told.append) == (4, []) and told == []
    (copied / "checkpoints" / "4" / "data" / "metadata").unlink()
    assert newest_sound(copied, told.append) == (2, [4])
    line = "Checkpoint 4 is damaged (data/metadata is missing); the one before it is used."
    assert told == [line]
    put_aside(copied, [4])
    assert newest_step(copied) == 2
    shutil.copytree(copied / "checkpoints" / "2", copied / "checkpoints" / "4")
    put_aside(copied, [4])  # in the place of the first
    assert newest_sound(copied, told.append) == (2, []) and len(told) == 1
    (copied / "checkpoints" / "2" / "checksums.json").unlink()
    with pytest.raises(InputError, match="All checkpoints .* are damaged"):
        newest_sound(copied, told.append)
    assert newest_sound(copied / "empty", told.append) == (0, [])


def test_a_full_disk_costs_one_save(tmp_path: Path) -> None:
    """A real one: a file system of 2 MB, of which a file takes nearly all for a while."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "mmcl", str(disk)])
    if mounted.returncode:
        pytest.skip("mounting a file system of its own takes the rights to do so")
    try:
        told: list[str] = []
        checkpoints = Checkpoints(disk, tell=told.append)
        checkpoints.save(1, make_state(1, seed=1), {"step": 1}, {})
        checkpoints._manager.wait_until_finished()
        free = shutil.disk_usage(disk).free
        (disk / "ballast").write_bytes(b"x" * (free - 8192))
        for step in (2, 3):
            checkpoints.save(step, make_state(1, seed=step), {"step": step}, {})
        with pytest.raises(InputError, match="state of step 3 could not be saved") as raised:
            checkpoints.close()
        assert "\n" not in str(raised.value)
        assert len(told) == 2
        for step, line in zip((2, 3), told, strict=True):
            assert line.startswith(f"Step {step} could not be saved (No space left on device)")
            assert line.endswith("the newest checkpoint is that of step 1.") and "\n" not in line
        assert newest_sound(disk, told.append) == (1, [])
        (disk / "ballast").unlink()
        checkpoints = Checkpoints(disk, tell=told.append)
        checkpoints.save(4, make_state(1, seed=4), {"step": 4}, {})
        checkpoints.close()
        assert saved_steps(disk) == [1, 4]
        checkpoints = Checkpoints(disk, writes=False)
        for step in (1, 4):
            restored = checkpoints.restore(make_state(1), step)
            assert restored.data == {"step": step}
            assert_same_bits(bits(restored.state), bits(make_state(1, seed=step)))
        checkpoints.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_checkpoint_of_another_model_is_refused(saved: Path) -> None:
    like = make_state(1)
    checkpoints = Checkpoints(saved)
    for other in (
        make_state(1, width=30),
        like._replace(params={"image": like.params["image"]}),
        like._replace(ema=like.params),
        like._replace(optimizer=optax.sgd(1.0).init(like.params)),
    ):
        with pytest.raises(InputError, match=r"checkpoints/4 ") as raised:
            checkpoints.restore(other, 4)
        assert "\n" not in str(raised.value)
    checkpoints.close()

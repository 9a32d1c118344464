"""The tower of frames against loops over them, and what padding must not do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models.frames import Tower


def sounds(frames: int, n: int = 2, bands: int = 4) -> dict[str, Any]:
    value = np.random.default_rng(0).normal(size=(n, frames, bands)).astype(np.float32)
    return {"value": value, "mask": np.ones((n, frames), bool)}


@pytest.fixture(scope="module")
def tower() -> Any:
    module = Tower(embed_dim=5, widths=(8, 6))
    params = module.init(jax.random.key(0), sounds(8))
    spread = jax.tree.map(  # no scale at 1 and no bias at 0
        lambda x: x + 0.1 * np.random.default_rng(1).normal(size=x.shape).astype(x.dtype), params
    )
    return spread, jax.jit(module.apply)


def literal(params: Any, value_FxC: np.ndarray) -> np.ndarray:
    """One sound without padding, frame by frame, in float64: z_D."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])

    def convolved(x: np.ndarray, conv: Any, stride: int) -> np.ndarray:
        kernel = conv["kernel"]
        rows = []
        for middle in range(0, len(x), stride):
            row = conv.get("bias", 0.0)
            for k in (-1, 0, 1):
                if 0 <= middle + k < len(x):
                    row = row + x[middle + k] @ kernel[1 + k]
            rows.append(row)
        return np.stack(rows)

    def normed(x: np.ndarray, norm: Any) -> np.ndarray:
        apart = x - x.mean(axis=1, keepdims=True)
        x = apart / np.sqrt((apart**2).mean(axis=1, keepdims=True) + 1e-6)
        return np.maximum(x * norm["scale"] + norm["bias"], 0)

    x = value_FxC.astype(np.float64)
    for i in (0, 1):
        x = convolved(x, params[f"down_{i}"], 2)
        residual, h = params[f"residual_{i}_0"], x
        for j in (0, 1):
            h = convolved(normed(h, residual[f"norm_{j}"]), residual[f"conv_{j}"], 1)
        x = x + h
    return normed(x, params["norm"]).mean(axis=0) @ params["projection"]["kernel"]


@pytest.mark.parametrize("frames", [8, 11])
def test_equals_literal_loops(tower: Any, frames: int) -> None:
    params, apply = tower
    inputs = sounds(frames)
    found = apply(params, inputs)
    for z_D, value in zip(found.z, inputs["value"]):
        np.testing.assert_allclose(z_D, literal(params, value), atol=2e-5)
    assert found.tokens.shape == (2, -(-frames // 4), 5) and found.mask.all()


@pytest.mark.parametrize("frames", [7, 8])
def test_what_is_padding_says_nothing(tower: Any, frames: int) -> None:
    """A sound in a longer clip, whatever stands behind its end, is the same sound."""
    params, apply = tower
    short, long = sounds(frames), sounds(16)
    long["value"][:, :frames] = short["value"]
    long["mask"][:, frames:] = False
    found = apply(params, long)
    np.testing.assert_allclose(found.z, apply(params, short).z, atol=1e-6)
    assert found.mask.tolist() == [[True, True, False, False]] * 2
    slope = jax.grad(lambda value: apply(params, {**long, "value": value}).z.sum())(
        jnp.asarray(long["value"])
    )
    assert np.abs(slope[:, :frames]).min() > 0
    np.testing.assert_array_equal(slope[:, frames:], 0)


def test_a_sound_without_frames_is_zero(tower: Any) -> None:
    params, apply = tower
    nothing = {**sounds(8), "mask": np.zeros((2, 8), bool)}
    np.testing.assert_array_equal(apply(params, nothing).z, 0)

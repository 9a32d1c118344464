"""What the parts of an input are, what stands for those that are taken out, and what they score."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.evals.saliency_inputs import parts_of
from mmcl.models import text
from mmcl.models.embedding import Embedding, unit

FLOAT = jnp.dtype("float32")
PARTNER = np.array(unit(np.random.default_rng(9).normal(size=(2, 4))))


class Weighted(nn.Module):
    """z = W x, of what a mask leaves."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> Embedding:
        x = inputs["value"]
        if "mask" in inputs:
            mask = inputs["mask"]
            leading = mask.shape == x.shape[: mask.ndim]
            shape = (*mask.shape, *(1,) * (x.ndim - mask.ndim)) if leading else (len(x), 1, -1)
            x = x * mask.reshape(shape)
        return Embedding(nn.Dense(4, name="w")(x.reshape(len(x), -1)))


def read(inputs: dict[str, Any], tower: nn.Module | None = None) -> tuple[Any, Any]:
    tower = Weighted() if tower is None else tower
    seen = inputs
    if inputs["value"].dtype == np.uint8:
        seen = {**inputs, "value": inputs["value"] / np.float32(127.5) - 1}
    params = tower.init(jax.random.key(0), seen, train=False)["params"]

    def score(value: Any, mask: Any = None) -> np.ndarray:
        changed = {**seen, "value": value} | ({} if mask is None else {"mask": mask})
        z = tower.apply({"params": params}, changed, train=False).z
        return np.sum(np.asarray(unit(z)) * PARTNER, axis=1)

    return parts_of(tower, FLOAT, params, inputs, PARTNER, None), score


@pytest.mark.parametrize(
    "shape, kind, mask, places",
    [
        ((5, 4, 3), np.uint8, None, (5, 4)),
        ((5, 4, 3), np.float32, None, (5, 4)),
        ((3, 4, 4, 3), np.uint8, (3,), (3, 4, 4)),
        ((7,), np.float32, None, (7,)),
        ((7,), np.float32, (), (7,)),
        ((7,), np.float32, (7,), (7,)),
        ((6, 5), np.float32, (6,), (6, 5)),
        ((2, 5), np.float32, (5,), (2, 5)),
    ],
)
def test_values(shape: Any, kind: Any, mask: Any, places: Any) -> None:
    rng = np.random.default_rng(len(shape))
    value = rng.integers(256, size=(2, *shape)).astype(kind)
    inputs: dict[str, Any] = {"value": value}
    there = np.ones((2, *places), bool)
    if mask is not None:
        inputs["mask"] = rng.random((2, *mask)) < 0.6
        inputs["mask"].reshape(2, -1)[:, 0] = True
        for at in np.ndindex(2, *places):
            key = at[: 1 + len(mask)] if mask != (5,) else (at[0], at[2])
            there[at] = inputs["mask"][key]
    parts, score = read(inputs)
    seen = value / np.float32(127.5) - 1 if kind == np.uint8 else value
    np.testing.assert_array_equal(parts.there, there)
    np.testing.assert_allclose(parts.value, seen, atol=1e-6)
    for b in range(2):
        flat = seen[b].reshape(*places, -1)[there[b]]
        mean = flat.mean(axis=0) if len(shape) > 2 else flat.mean()
        np.testing.assert_allclose(
            parts.baseline[b], np.broadcast_to(mean, shape), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(parts.score(parts.value), score(seen), atol=1e-5)
    gone = (rng.random((2, *places)) < 0.5) & there
    changed = np.where(gone.reshape(2, *places, *(1,) * (len(shape) - len(places))),
                       parts.baseline, seen)  # fmt: skip
    np.testing.assert_allclose(parts.without(jnp.asarray(gone)), score(changed), atol=1e-5)


@pytest.mark.parametrize("attend_padding", [False, True])
def test_tokens(attend_padding: bool) -> None:
    """Taken out is what a text without the token would be, padding and all."""
    tower = text.Tower(
        embed_dim=4, vocab_size=9, width=8, depth=1, heads=2, attend_padding=attend_padding
    )
    ids = np.array([[4, 5, 6, 8, 8], [1, 2, 1, 2, 3]], np.int32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    parts, score = read({"value": ids, "mask": mask}, tower)
    np.testing.assert_array_equal(parts.there, mask)
    assert parts.value.shape == (2, 5, 8)
    mean = np.asarray(parts.value)[0, :3].mean(axis=0)
    np.testing.assert_allclose(parts.baseline[0], np.broadcast_to(mean, (5, 8)), atol=1e-6)
    np.testing.assert_allclose(parts.score(parts.value), score(ids), atol=1e-5)
    gone = np.array([[0, 1, 0, 0, 0], [1, 0, 0, 0, 1]], bool)
    without = np.array([[4, 8, 6, 8, 8], [8, 2, 1, 2, 8]], np.int32)
    expected = score(without, mask & ~gone)
    np.testing.assert_allclose(parts.without(jnp.asarray(gone)), expected, atol=1e-5)
    assert np.isfinite(parts.without(jnp.asarray(mask))).all()

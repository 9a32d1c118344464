"""The bag tower against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models.ngrams import Tower, counts

BUCKETS = 50


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    ids_BxL = rng.integers(0, 2**31, (6, 30), dtype=np.int32)
    ids_BxL[:, :12] = ids_BxL[:, :3].repeat(4, axis=1)  # the same n-gram several times
    return {"value": ids_BxL, "mask": np.arange(30) < np.array([[30], [13], [12], [1], [5], [29]])}


@pytest.fixture(scope="module")
def tower():
    return Tower(embed_dim=7, buckets=BUCKETS, width=8, mlp_ratio=3.0)


@pytest.fixture(scope="module")
def params(tower, inputs):
    params = tower.init(jax.random.key(0), inputs)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + rng.normal(0, 0.3, p.shape).astype(np.float32), params)


def test_counts_are_those_of_a_loop():
    rng = np.random.default_rng(2)
    ids_BxL, mask_BxL = rng.integers(0, 5, (4, 40)), rng.random((4, 40)) < 0.6
    want_BxV = np.zeros((4, 6))
    for row, (ids, mask) in enumerate(zip(ids_BxL, mask_BxL, strict=True)):
        for bucket in ids[mask]:
            want_BxV[row, bucket] += 1
    got_BxV = counts(jnp.asarray(ids_BxL), jnp.asarray(mask_BxL), 6)
    np.testing.assert_array_equal(got_BxV, want_BxV)


def test_embedding_is_that_of_the_formula(tower, params, inputs):
    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    want = []
    for ids, mask in zip(inputs["value"], inputs["mask"], strict=True):
        count = np.bincount(ids[mask] % BUCKETS, minlength=BUCKETS)
        h = np.log(1 + count) @ p["embedding"]
        h = (h - h.mean()) / np.sqrt(h.var() + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]
        h = gelu(gelu(h) @ p["up"]["kernel"] + p["up"]["bias"])
        want.append(h @ p["projection"]["kernel"])
    assert p["up"]["kernel"].shape == (8, 24)
    got_BxD = tower.apply({"params": params}, inputs).z
    np.testing.assert_allclose(got_BxD, want, rtol=1e-4, atol=1e-5)


def test_order_and_padding_change_nothing(tower, params, inputs):
    rng = np.random.default_rng(3)
    order = rng.permutation(30)
    other = {
        "value": np.pad(inputs["value"][:, order], ((0, 0), (0, 9)), constant_values=4),
        "mask": np.pad(inputs["mask"][:, order], ((0, 0), (0, 9))),
    }
    a, b = (tower.apply({"params": params}, x).z for x in (inputs, other))
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_computes_in_the_precision_of_its_parameters(tower, params, inputs):
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    assert tower.apply({"params": narrow}, inputs).z.dtype == jnp.bfloat16

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models.bag import Tower


@pytest.fixture
def tower():
    tower = Tower(embed_dim=5, buckets=7)
    inputs = {"value": jnp.zeros((1, 1), jnp.int32), "mask": jnp.ones((1, 1), bool)}
    return tower, tower.init(jax.random.key(0), inputs)


def encode(tower, value, mask):
    module, params = tower
    return np.asarray(module.apply(params, {"value": jnp.array(value), "mask": jnp.array(mask)}).z)


def test_the_mean_of_what_is_there(tower) -> None:
    table = np.asarray(tower[1]["params"]["embedding"])
    z = encode(tower, [[1, 9, 2, 2], [3, 0, 0, 0]], [[1, 1, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(z[0], (table[1] + table[9 % 7] + table[2]) / 3, rtol=1e-6)
    np.testing.assert_array_equal(z[1], 0)


def test_order_does_not_matter(tower) -> None:
    mask = [[True] * 4]
    one, other = (encode(tower, [of], mask) for of in ([1, 2, 3, 4], [4, 1, 3, 2]))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_words_that_are_not_there_learn_nothing(tower) -> None:
    module, params = tower

    def loss(params):
        inputs = {"value": jnp.array([[1, 2]]), "mask": jnp.array([[True, False]])}
        return module.apply(params, inputs).z.sum()

    gradient = jax.grad(loss)(params)["params"]["embedding"]
    np.testing.assert_array_equal(np.flatnonzero(np.abs(gradient).sum(axis=1)), [1])

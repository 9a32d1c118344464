"""A tower of vectors that are there already."""

import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.models.precomputed import Tower


def test_a_vector_is_its_own_embedding_and_nothing_is_learnt() -> None:
    value = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    tower = Tower(5)
    params = tower.init(jax.random.key(0), {"value": value})
    assert not jax.tree.leaves(params)
    np.testing.assert_array_equal(tower.apply(params, {"value": value}).z, value)


def test_another_width_is_refused() -> None:
    with pytest.raises(InputError, match="5 numbers; set config.embed_dim=5"):
        Tower(4).init(jax.random.key(0), {"value": np.zeros((3, 5), np.float32)})

"""Vectors of tokens: what a tower makes of them, and their gradients, against its own table's."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals.input_scores import encoder, slopes
from mmcl.evals.token_vectors import of_vectors
from mmcl.models import bag, mlp, ngrams, text

FLOAT = jnp.dtype("float32")
TOWERS: dict[str, nn.Module] = {
    "text": text.Tower(embed_dim=5, vocab_size=11, width=8, depth=1, heads=2),
    "clip": text.Tower(
        embed_dim=5, vocab_size=11, width=8, depth=1, heads=2, causal=True, pool="eot",
        attend_padding=True,
    ),
    "bag": bag.Tower(embed_dim=5, buckets=11),
    "ngrams": ngrams.Tower(embed_dim=5, buckets=11, width=8),
}  # fmt: skip
IDS = np.array([[4, 7, 4, 9, 0, 0], [3, 3, 3, 1, 25, 3], [0, 2, 8, 0, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], bool)


def inputs(name: str) -> dict[str, Any]:
    ids = IDS if name in ("bag", "ngrams") else IDS % 11  # which take the remainder themselves
    return {"value": ids, "mask": MASK}


@functools.cache
def params(name: str) -> Any:
    made = TOWERS[name].init(jax.random.key(0), inputs(name), train=False)["params"]
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), made)


@pytest.mark.parametrize("name", TOWERS)
def test_the_same_vectors_give_the_same_embedding(name: str) -> None:
    encode, vectors = of_vectors(TOWERS[name], FLOAT, params(name), inputs(name), 4)
    expected = encoder(TOWERS[name], FLOAT, params(name), inputs(name), 4)(inputs(name)["value"])
    assert vectors.shape[:2] == IDS.shape
    np.testing.assert_allclose(encode(vectors), expected, atol=1e-6)


@pytest.mark.parametrize("name", TOWERS)
def test_slopes_sum_up_to_that_of_the_table(name: str) -> None:
    """What all tokens of an id add up to is the gradient of its row in the tower's own table."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))

    def of_params(its: Any) -> jax.Array:
        z = encoder(TOWERS[name], FLOAT, its, inputs(name))(inputs(name)["value"])
        return jnp.sum(weight * z)

    table = {"embed": {"embedding": 0}} if name in ("text", "clip") else {"embedding": 0}
    own = jax.grad(of_params)(params(name))
    of_table = own["embed"]["embedding"] if "embed" in table else own["embedding"]
    encode, vectors = of_vectors(TOWERS[name], FLOAT, params(name), inputs(name))
    found = slopes(lambda v: jnp.sum(weight * encode(v), axis=-1))(vectors)
    expected = np.zeros_like(of_table)
    np.add.at(expected, IDS.ravel() % 11, np.asarray(found).reshape(-1, expected.shape[1]))
    np.testing.assert_allclose(of_table, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_tokens_of_a_sequence_have_gradients_of_their_own() -> None:
    encode, vectors = of_vectors(TOWERS["text"], FLOAT, params("text"), inputs("text"))
    found = np.asarray(slopes(lambda v: encode(v)[:, 0])(vectors))
    assert np.abs(found[1, 0] - found[1, 1]).max() > 1e-4
    assert not found[~MASK].any()
    encode, vectors = of_vectors(TOWERS["ngrams"], FLOAT, params("ngrams"), inputs("ngrams"))
    found = np.asarray(slopes(lambda v: encode(v)[:, 0])(vectors))
    np.testing.assert_allclose(found[1, 0], found[1, 1], atol=1e-7)  # one n-gram, counted twice
    assert not found[~MASK].any() and found[2, 0].any()


def test_a_tower_without_a_table() -> None:
    tower = mlp.Tower(embed_dim=4)
    its = tower.init(jax.random.key(0), {"value": np.zeros((1, 3))}, train=False)["params"]
    with pytest.raises(InputError, match="mmcl.models.mlp has no one table 'embedding'"):
        of_vectors(tower, FLOAT, its, {"value": IDS, "mask": MASK})

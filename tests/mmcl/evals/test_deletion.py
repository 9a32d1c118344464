"""Deletion and insertion against literal loops."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.evals.deletion import deletion_and_insertion, ranked

seeds = st.integers(0, 2**31 - 1)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=20)
def test_the_most_salient_come_first_and_ties_at_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    map_BxHxW = rng.integers(-1, 2, size=(2, 3, 4)).astype(np.float32)
    chance = rng.random((2, 3, 4)).astype(np.float32)
    there = rng.random((2, 3, 4)) < 0.7
    found = np.asarray(ranked(*map(jnp.asarray, (map_BxHxW, chance, there))))
    for rank, salient, coin, is_there in zip(found, map_BxHxW, chance, there):
        order = sorted(
            range(12), key=lambda p: (not is_there.flat[p], -salient.flat[p], coin.flat[p])
        )
        assert [rank.flat[p] for p in order] == list(range(12))


@hypothesis.given(seeds, st.booleans())
@hypothesis.settings(max_examples=10)
def test_equal_literal_loops(seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(2, 3, 4)).astype(np.float32)
    there = np.ones((2, 3, 4), bool) if whole else rng.random((2, 3, 4)) < 0.6
    there[:, 0, 0] = True
    chance = rng.random((2, 3, 4)).astype(np.float32)
    rank = np.asarray(ranked(*map(jnp.asarray, (weight, chance, there))))

    def without(gone: Any) -> Any:
        return jnp.tanh((weight * (jnp.asarray(there) & ~gone)).sum(axis=(1, 2)))

    found = deletion_and_insertion(without, jnp.asarray(rank), jnp.asarray(there))
    for b in range(2):
        count = int(there[b].sum())
        for way, area in enumerate(found):
            heights = []
            for step in range(17):
                total = 0.0
                for p in range(12):
                    first = rank[b].flat[p] < count * step / 16
                    stays = there[b].flat[p] and (first if way else not first)
                    total += weight[b].flat[p] * stays
                heights.append(np.tanh(total))
            expected = sum((heights[i] + heights[i + 1]) / 2 for i in range(16)) / 16
            assert area[b] == pytest.approx(expected, abs=1e-4)

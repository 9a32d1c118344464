"""Every objective, problems to put to them, and what one answer of theirs must agree with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models.embedding import Embedding
from mmcl.objectives import (
    alignment_uniformity,
    cwcl,
    decoupled,
    dexml,
    filip,
    hardness,
    infonce,
    macl,
    matryoshka,
    modx,
    one_to_k,
    queue,
    sigmoid,
    soft_targets,
    supcon,
)
from mmcl.objectives.term import Objective
from pallas_kernels.pair_reduce.flops import products

PAIRS = (("image", "text"),)
OBJECTIVES: dict[str, Callable[[int, int], Objective]] = {  # of the batch size and the width
    "alignment_uniformity": lambda B, D: alignment_uniformity.Objective(cross=0.5),
    "cwcl": lambda B, D: cwcl.Objective(),
    "decoupled": lambda B, D: decoupled.Objective(sigma=0.5),
    "dexml": lambda B, D: dexml.Objective(pairs=PAIRS),
    "dexml, top": lambda B, D: dexml.Objective(pairs=PAIRS, loss="soft_top_k", top=3),
    "filip": lambda B, D: filip.Objective(),
    "hardness": lambda B, D: hardness.Objective(),
    "infonce": lambda B, D: infonce.Objective(),
    "macl": lambda B, D: macl.Objective(),
    "matryoshka": lambda B, D: matryoshka.Objective(prefixes=(D // 2, D)),
    "modx": lambda B, D: modx.Objective(alpha=1.0),
    "one_to_k": lambda B, D: one_to_k.Objective(),
    "queue": lambda B, D: queue.Objective(D, length=2 * B, positives="concept"),
    "sigmoid": lambda B, D: sigmoid.Objective(),
    "sigmoid, by label": lambda B, D: sigmoid.Objective(positives="concept"),
    "soft_targets": lambda B, D: soft_targets.Objective(),
    "supcon": lambda B, D: supcon.Objective("concept"),
    "supcon, within": lambda B, D: supcon.Objective("concept", pairs=(("image", "image"),)),
}


class Problem(NamedTuple):
    """The arguments of an objective; floats are of one dtype."""

    params: dict[str, Any]
    state: Any
    embeddings: dict[str, Embedding]
    batch: dict[str, Any]


@pytest.fixture(params=OBJECTIVES)
def make_objective(request: pytest.FixtureRequest) -> Callable[[int, int], Objective]:
    return OBJECTIVES[request.param]


@pytest.fixture
def all_objectives() -> set[str]:
    """Names of the modules that are tested here."""
    return {name.partition(",")[0] for name in OBJECTIVES}


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    return problem


def problem(
    objective: Objective,
    B: int,
    D: int,
    dtype: Any,
    seed: int = 0,
    fresh: bool = False,
    present: dict[str, np.ndarray] | None = None,
) -> Problem:
    """A batch of which every tenth modality is absent, for an objective that has seen another (or
    nothing yet, where it is fresh). `present[modality]` (B,) says instead who has that one.
    """
    params = jax.tree.map(lambda p: np.asarray(p, dtype), objective.init(jax.random.key(seed)))
    state = objective.init_state(jax.random.key(seed))
    if state is not None and not fresh:
        earlier = drawn(B, D, dtype, seed + 1)
        state = jax.device_get(objective(params, state, *earlier, jax.random.key(0)).state)
        state = jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, state)
    return Problem(params, state, *drawn(B, D, dtype, seed, present))


def drawn(
    B: int, D: int, dtype: Any, seed: int, present: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, Embedding], dict[str, Any]]:
    """Embeddings of any length, and their batch: a text is also 0 to 3 views, each with the id of
    a label, and a list of labels that are right for the record.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * rng.uniform(0.1, 9, (*shape[:-1], 1))).astype(dtype)

    words_BxU = rng.integers(0, 5, (B, 1)) > np.arange(4)  # 0 to 4 words a caption
    embeddings = {
        "image": Embedding(normal(B, D), normal(B, 3, D)),
        "text": Embedding(normal(B, D), normal(B, 4, D), words_BxU),
    }
    batch = {
        "present": {m: rng.random(B) < 0.9 for m in embeddings},
        "concept": rng.integers(0, 1 + 2 * B // 3, B).astype(np.int32),
        "teacher": {m: normal(B, D + 1) for m in embeddings},
    }
    batch["present"] |= present or {}
    batch["teacher"]["text"] += batch["teacher"]["image"]  # it knows some pairs
    embeddings["text"] = embeddings["text"]._replace(views=normal(B, 3, D))
    ids_BxK = rng.integers(0, 2 * B, (B, 3))
    positives_BxP = np.concatenate([ids_BxK[:, :2], rng.integers(0, 2 * B, (B, 2))], axis=1)
    ends_B = rng.integers(0, 5, B)
    batch["text"] = {
        "present": (rng.random((B, 3)) < 0.6) & batch["present"]["text"][:, None],
        "ids": ids_BxK.astype(np.int32),
        "positives": np.where(np.arange(4) < ends_B[:, None], positives_BxP, -1).astype(np.int32),
    }
    return embeddings, batch


@pytest.fixture
def agree() -> Callable[..., None]:
    """Values, weights and gradients of the terms are those of a dense formula, in float64."""

    def agree(
        objective: Objective,
        dense: Callable[..., Any],
        problem: Problem,
        tolerance: float = 1e-12,
    ) -> None:
        """`dense(params, embeddings, batch, state)` gives {i: value} of the records that count; of
        several terms, that of each by its name.
        """
        params, state, embeddings, batch = problem
        B = len(embeddings["image"].z)

        def loss(params: Any, embeddings: Any) -> Any:
            terms = objective(params, state, embeddings, batch, jax.random.key(0)).terms
            return sum(term.mean() for term in terms.values()), terms

        def literal(params: Any, embeddings: Any) -> Any:
            found = dense(params, embeddings, batch, state)
            if set(found) != set(terms):
                (only,) = terms
                found = {only: found}
            means = [sum(values.values()) / max(len(values), 1) for values in found.values()]
            return sum(means, jnp.zeros(())), found

        with jax.enable_x64(True):
            assert embeddings["image"].z.dtype == np.float64
            run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True))
            (total, terms), gradient = run(params, embeddings)
            literally = jax.value_and_grad(literal, (0, 1), has_aux=True, allow_int=True)
            (expected, found), slope = literally(params, embeddings)
        np.testing.assert_allclose(total, expected, rtol=tolerance, atol=tolerance)
        for name, values in found.items():
            weights = [i in values for i in range(B)]
            np.testing.assert_array_equal(terms[name].weight_B, weights, name)
            wanted = [float(values.get(i, 0.0)) for i in range(B)]
            np.testing.assert_allclose(
                terms[name].value_B, wanted, rtol=tolerance, atol=tolerance, err_msg=name
            )
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope), strict=True):
            if jnp.issubdtype(a.dtype, jnp.floating):
                assert np.abs(a - b).max() <= tolerance * np.abs(b).max()

    return agree


@pytest.fixture
def count_products() -> Callable[[Objective], float]:
    """Products of (B, D) and (D, B) that value and gradients of an objective take."""

    def count_products(objective: Objective, B: int = 1024, D: int = 64) -> float:
        params, state, embeddings, batch = problem(objective, B, D, np.float32, fresh=True)

        def loss(embeddings: Any) -> Any:
            result = objective(params, state, embeddings, batch, jax.random.key(0))
            return sum(term.mean() for term in result.terms.values())

        step = jax.value_and_grad(loss, allow_int=True)
        return products(step, embeddings, unit=2.0 * B * B * D)

    return count_products

"""Every objective, problems to put to them, and what one answer of theirs must agree with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models.embedding import Embedding
from mmcl.objectives import decoupled, filip, infonce, queue, sigmoid, soft_targets, supcon
from mmcl.objectives.term import Objective

OBJECTIVES: dict[str, Callable[[int, int], Objective]] = {  # of the batch size and the width
    "decoupled": lambda B, D: decoupled.Objective(sigma=0.5),
    "filip": lambda B, D: filip.Objective(),
    "infonce": lambda B, D: infonce.Objective(),
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
    objective: Objective, B: int, D: int, dtype: Any, seed: int = 0, fresh: bool = False
) -> Problem:
    """A batch of which every tenth modality is absent, for an objective that has seen another (or
    nothing yet, where it is fresh).
    """
    params = jax.tree.map(lambda p: np.asarray(p, dtype), objective.init(jax.random.key(seed)))
    state = objective.init_state(jax.random.key(seed))
    if state is not None and not fresh:
        earlier = drawn(B, D, dtype, seed + 1)
        state = jax.device_get(objective(params, state, *earlier, jax.random.key(0)).state)
        state = jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, state)
    return Problem(params, state, *drawn(B, D, dtype, seed))


def drawn(B: int, D: int, dtype: Any, seed: int) -> tuple[dict[str, Embedding], dict[str, Any]]:
    """Embeddings of any length, and their batch."""
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
    return embeddings, batch


@pytest.fixture
def agree() -> Callable[..., None]:
    """Values, weights and gradients of a term are those of a dense formula, in float64."""

    def agree(objective: Objective, dense: Callable[..., Any], problem: Problem) -> None:
        """`dense(params, embeddings, batch, state)` gives {i: value} of the records that count."""
        params, state, embeddings, batch = problem

        def loss(params: Any, embeddings: Any) -> Any:
            (term,) = objective(params, state, embeddings, batch, jax.random.key(0)).terms.values()
            return term.mean(), term

        def literal(params: Any, embeddings: Any) -> Any:
            values = dense(params, embeddings, batch, state)
            return sum(values.values()) / max(len(values), 1), values

        with jax.enable_x64(True):
            assert embeddings["image"].z.dtype == np.float64
            run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True))
            (mean, term), gradient = run(params, embeddings)
            literally = jax.value_and_grad(literal, (0, 1), has_aux=True, allow_int=True)
            (expected, values), slope = literally(params, embeddings)
            expected_values = np.array([values.get(i, 0.0) for i in range(len(term.value_B))])
        np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(term.value_B, expected_values, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(
            term.weight_B, [i in values for i in range(len(term.value_B))]
        )
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope), strict=True):
            if jnp.issubdtype(a.dtype, jnp.floating):
                assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()

    return agree

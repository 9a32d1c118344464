"""The losses that are measured: each objective on a synthetic batch of its kind."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data_pipelines import names
from data_pipelines.errors import InputError
from mmcl.models.embedding import Embedding, unit
from pallas_kernels.pair_reduce import choices
from pallas_kernels.pair_reduce.benchmark import Cost, measure
from pallas_kernels.pair_reduce.choices import Implementation

HOME = "mmcl.objectives"
SCALE, BIAS = 14.3, -10.0  # first values of the logits' scale and bias, here and for open_clip
TOKENS, TOKEN_DIM = 8, 64  # of an example, where an objective compares parts
VIEWS = 4  # of an example, where an objective compares several of a modality
RECORDS_OF_A_LABEL = 4
# A name that users look for, its objective and the options that make them comparable.
KNOWN_AS = {
    "clip": ("infonce", {"init_scale": SCALE}),
    "siglip": ("sigmoid", {"init_scale": SCALE, "init_bias": BIAS}),
}


class Case(NamedTuple):
    """A loss that is ready to be measured: `function(*args)` -> (value, gradients)."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    unit: tuple[jax.Array, jax.Array]  # a_BxD, b_BxD


def offered() -> list[str]:
    """Every name of a case: `clip`, `siglip`, and each objective that mmcl brings along."""
    return [*KNOWN_AS, *names.offered(HOME, face="Objective")]


def default() -> list[str]:
    """Each objective once: `clip` is infonce, and `siglip` is sigmoid, with one positive."""
    same = {objective for objective, _ in KNOWN_AS.values()}
    return [name for name in offered() if name not in same]


def shapes(name: str, batch: int, dim: int, dtype: str = "float32") -> Case:
    """As `build`, with shapes in place of arrays."""
    made: list[Case] = []

    def make() -> Any:
        made.append(build(name, batch, dim, dtype))
        return made[0].args, made[0].unit

    args, unit = jax.eval_shape(make)
    return Case(made[0].function, args, unit)


def build(name: str, batch: int, dim: int, dtype: str = "float32") -> Case:
    """The loss called `name`, its gradients to both embeddings and to its own parameters.

    The batch has every record whole, unit embeddings of independent random directions, four records
    to a label, and a teacher's embeddings; a queue is as long as the batch. What an objective does
    not read of the embeddings (its tokens, its views, or its pooled ones) is not differentiated and
    takes no memory.

    Args:
        batch: B, records.
        dim: D, width of the pooled embeddings, and of views, of which a record has 4; tokens are 8
            to a record and at most 64 wide. Embeddings are nested at D, D/2, D/4 and D/8.
        dtype: of embeddings and tokens; parameters are float32.
    """
    objective = _objective(name, batch, dim)
    modalities = sorted({m for pair in getattr(objective, "pairs", ()) for m in pair})
    modalities = modalities or ["image", "text"]
    key = jax.random.key(0)

    vectors: dict[tuple[str, str], Any] = {}
    for modality in modalities:
        vectors[modality, "z"] = jax.ShapeDtypeStruct((batch, dim), dtype)
        shape = (batch, TOKENS, min(dim, TOKEN_DIM))
        vectors[modality, "tokens"] = jax.ShapeDtypeStruct(shape, dtype)
        vectors[modality, "views"] = jax.ShapeDtypeStruct((batch, VIEWS, dim), dtype)
    index = jnp.arange(batch, dtype=jnp.int32)
    label = index % max(1, batch // RECORDS_OF_A_LABEL)
    ids = label[:, None] * VIEWS + jnp.arange(VIEWS, dtype=jnp.int32)
    views = {"present": jnp.ones((batch, VIEWS), bool), "ids": ids, "positives": ids}
    data: dict[str, Any] = {
        **{modality: views for modality in modalities},
        "index": index,
        "words": jnp.ones((batch, TOKENS), bool),  # which tokens are there: all
        "present": {modality: jnp.ones(batch, bool) for modality in modalities},
        "teacher": {
            modality: _directions(jax.random.fold_in(key, 100 + i), (batch, dim))
            for i, modality in enumerate(modalities)
        },
        "concept": label,
    }
    if getattr(objective, "positives", None) is not None:
        data[objective.positives] = label
    params, state = objective.init(key), objective.init_state(key)

    def loss(vectors: Any, params: Any, state: Any, data: Any, key: Any) -> jax.Array:
        embeddings = {
            modality: Embedding(
                vectors[modality, "z"],
                vectors[modality, "tokens"],
                data["words"],
                vectors[modality, "views"],
            )
            for modality in modalities
        }
        result = objective(params, state, embeddings, data, key)
        return sum((term.mean() for term in result.terms.values()), jnp.float32(0))

    read = _read(loss, vectors, params, state, data, key)
    given = {
        name: _directions(jax.random.fold_in(key, i), x.shape).astype(dtype)
        for i, (name, x) in enumerate(vectors.items())
        if name in read
    }

    def of_what_is_read(given: Any, *rest: Any) -> jax.Array:
        unread = {name: jnp.zeros(x.shape, x.dtype) for name, x in vectors.items()}
        return loss({**unread, **given}, *rest)

    pooled = [given.get((modality, "z")) for modality in modalities[:2]]
    a, b = (
        _directions(jax.random.fold_in(key, 200 + i), (batch, dim)) if z is None else z
        for i, z in enumerate(pooled)
    )
    function = jax.value_and_grad(of_what_is_read, (0, 1))
    return Case(function, (given, params, state, data, key), (a, b))


def run(
    name: str, impl: Implementation, batch: int, dim: int, repeats: int, dtype: str = "float32"
) -> Cost:
    """Measure the loss called `name`, every call of the pair engine in it done by `impl`.

    Raises:
        InputError: it makes no such call, so that there is nothing to choose; or there is no device
            for the kernel.
    """
    device = impl.removeprefix("pallas_")
    if impl.startswith("pallas_") and jax.default_backend() != device:
        raise InputError(f"needs a {device.upper()}, and there is none.")
    case = build(name, batch, dim, dtype)
    with choices(impl=impl) as made:
        cost = measure(case.function, case.args, unit=case.unit, repeats=repeats)
    if not made:
        raise InputError("it does not call the pair engine.")
    ran = {choice["impl"] for choice in made.values()}
    if ran != {impl}:
        raise InputError(f"the engine ran {', '.join(sorted(ran))} instead.")
    return cost


def _objective(name: str, batch: int, dim: int) -> Any:
    found, options = KNOWN_AS.get(name, (name, {}))
    objective = importlib.import_module(f"{HOME}.{found}").Objective
    given: dict[str, Any] = {"embed_dim": dim, "batch_size": batch, "length": batch}
    given["prefixes"] = tuple(sorted({max(1, dim // part) for part in (8, 4, 2, 1)}))
    label = names.parameters(objective).get("positives")
    if label is not None and label.default is label.empty:
        given["positives"] = "concept"
    return names.call(objective, options, f"mmcl/objectives/{found}.py", **given)


def _directions(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return unit(jax.random.normal(key, shape))


def _read(loss: Callable[..., Any], vectors: dict[Any, Any], *rest: Any) -> set[Any]:
    """Which of the vectors the value depends on."""
    jaxpr = jax.make_jaxpr(loss)(vectors, *rest).jaxpr
    seen = {id(var) for equation in jaxpr.eqns for var in equation.invars}
    return {name for name, var in zip(sorted(vectors), jaxpr.invars) if id(var) in seen}

"""What probes read: which items, of which split, from where in a tower."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import features
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh
from mmcl.model import Model
from mmcl.models import mlp, text, vit
from mmcl.models.embedding import Embedding, unit
from mmcl.models.towers import Towers


def split(name: str, groups: Sequence[int], shown: Any = None, seed: int = 0) -> Embedded:
    n = len(groups)
    z_NxD = unit(np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32))
    return Embedded(
        split=name,
        z={"image": np.array(z_NxD)},
        labels={"group": np.asarray(groups, np.int32), "concept": 7 + np.arange(n, dtype=np.int32)},
        shown={"image": np.zeros((n, 2, 2, 3), np.uint8) if shown is None else shown},
        ids=[f"record {i}" for i in range(n)],
        label_names={"group": list("abcdef")},
    )


def fake(*splits: Embedded) -> Any:
    """A model that has these splits, was trained on the first, and notes what it is asked."""
    asked: list[str] = []

    def embed(name: str, modalities: Sequence[str]) -> Embedded:
        asked.append(name)
        return next(one for one in splits if one.split == name)

    settings = SimpleNamespace(source={"name": "it", "split": splits[0].split})
    return SimpleNamespace(embed=embed, settings=settings, asked=asked, kept={})


def pair(judged: Embedded, model: Any, **options: Any) -> tuple[features.Items, features.Items]:
    given = dict(modality="image", label="group", fit=None, before_projection=False) | options
    return features.fitting_and_judged(judged, model, **given)


def test_the_split_trained_on_is_fitted_to_and_encoded_once() -> None:
    train, val, test = split("train", [0, 1, 2]), split("val", [0, 1], seed=1), split("test", [1])
    model = fake(train, val, test)
    for judged in (val, test, val):
        fitting, found = pair(judged, model)
        np.testing.assert_array_equal(fitting.x, train.z["image"])
        np.testing.assert_array_equal(found.x, judged.z["image"])
        np.testing.assert_array_equal(found.label, judged.labels["group"])
        np.testing.assert_array_equal(found.concept, judged.labels["concept"])
    assert model.asked == ["train"]
    fitting, _ = pair(test, model, fit="val")
    np.testing.assert_array_equal(fitting.x, val.z["image"])


def test_equal_strings_of_a_class_are_one_item() -> None:
    train = split("train", [0, 0, 1, 1], shown=["x", "x", "x", "y"])
    fitting, _ = pair(split("val", [0, 1], shown=["x", "y"]), fake(train))
    assert fitting.label.tolist() == [0, 1, 1] and fitting.concept.tolist() == [7, 9, 10]


@pytest.mark.parametrize(
    "train, options, message",
    [
        ([0, 1], dict(fit="val"), "a probe of 'val' needs another split"),
        ([0, 1], dict(label="groop"), "'val' have no label 'groop'. Did you mean 'group'"),
        ([0, 1], dict(label="concept"), "'val' have no label 'concept'"),
        ([0, 1], dict(modality="sound"), "'val' have no modality 'sound'"),
        ([2, 2], dict(), "all items of 'train' have one 'group'"),
        ([2, 3], dict(), "'val' and 'train' have no 'group' in common"),
    ],
)
def test_what_cannot_be_probed_is_named(
    train: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pair(split("val", [0, 1]), fake(split("train", train)), **options)


def test_a_model_trained_on_no_named_split_needs_one() -> None:
    model = fake(split("train", [0, 1]))
    model.settings.source = {"name": "mixture"}
    with pytest.raises(InputError, match="give it as 'fit'"):
        pair(split("val", [0, 1]), model)


def test_a_diverged_model_gets_no_numbers() -> None:
    train, val = split("train", [0, 1]), split("val", [0, 1])
    val.z["image"][1] = np.nan
    with pytest.raises(InputError, match="1 of 2 'image' .* diverged"):
        pair(val, fake(train))
    model = fake(train)
    model.kept[("val", "image", True)] = val
    with pytest.raises(InputError, match="some 'image' features .* diverged"):
        pair(val, model, before_projection=True)


PIXELS = {"value": np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)}
TOKENS = {
    "value": np.random.default_rng(1).integers(9, size=(8, 5), dtype=np.int32),
    "mask": np.arange(5) < np.array([1, 2, 3, 4, 5, 5, 3, 2])[:, None],
}
SMALL: dict[str, Any] = dict(embed_dim=6, width=8, depth=0, heads=2)
TOWERS: dict[str, tuple[nn.Module, dict[str, np.ndarray]]] = {
    "vit mean": (vit.Tower(**SMALL, patch=4), PIXELS),
    "vit cls": (vit.Tower(**SMALL, patch=4, pool="cls", projection="affine"), PIXELS),
    "text mean": (text.Tower(**SMALL, vocab_size=9), TOKENS),
    "text eot": (text.Tower(**SMALL, vocab_size=9, pool="eot"), TOKENS),
    "mlp": (mlp.Tower(embed_dim=6, width=8), {"value": PIXELS["value"].reshape(8, -1)}),
}


def real(tower: nn.Module, inputs: Any, mesh: Mesh, dtype: str = "float32") -> Model:
    towers = Towers({"it": tower}, jnp.dtype(dtype))
    params = jax.jit(towers.init)(jax.random.key(0), {"it": inputs})
    nothing = cast(Any, None)
    return Model(nothing, nothing, towers, {}, params, mesh)


@pytest.mark.parametrize("name", TOWERS)
def test_the_projection_of_what_is_read_is_the_embedding(name: str) -> None:
    tower, inputs = TOWERS[name]
    for devices in (1, 8):
        model = real(tower, inputs, data_mesh(jax.devices()[:devices]))
        x_BxF = features.read_before_projection(model).encode_batch("it", inputs)
        layer = model.params["it"]["projection"]
        assert x_BxF.shape == (8, 8) and x_BxF.dtype == np.float32
        z_BxD = x_BxF @ layer["kernel"] + layer.get("bias", 0)
        expected = jax.jit(functools.partial(model.towers.encode, modality="it", train=False))
        np.testing.assert_allclose(z_BxD, expected(model.params, inputs=inputs).z, atol=2e-6)


def test_half_precision_is_read_as_float32(one_device: Mesh) -> None:
    tower, inputs = TOWERS["mlp"]
    exact, half = (
        features.read_before_projection(real(tower, inputs, one_device, dtype)).encode_batch(
            "it", inputs
        )
        for dtype in ("float32", "bfloat16")
    )
    assert half.dtype == np.float32 and 0 < np.abs(half - exact).max() < 0.05


def test_a_tower_without_projection_is_named(one_device: Mesh) -> None:
    """A layer of that name deeper inside is another one."""

    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(3, name="projection")(x)

    class Tower(nn.Module):
        @nn.compact
        def __call__(self, inputs: Any, *, train: bool = False) -> Embedding:
            return Embedding(Inner(name="inner")(inputs["value"]))

    inputs = {"value": np.ones((4, 2), np.float32)}
    model = features.read_before_projection(real(Tower(), inputs, one_device))
    with pytest.raises(InputError, match="tower of 'it' has no layer 'projection'"):
        model.encode_batch("it", inputs)


def test_what_is_read_again_is_not_compiled_again(one_device: Mesh) -> None:
    tower, inputs = TOWERS["mlp"]
    compiled = set()
    for _ in range(2):  # as in two evaluations of a run
        features.read_before_projection(real(tower, inputs, one_device)).encode_batch("it", inputs)
        compiled.add(features._read._cache_size())
    assert len(compiled) == 1


@hypothesis.given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=50, deadline=None)
def test_accuracy_equals_literal_loops(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score_MxC = rng.integers(3, size=(m, 9)).astype(np.float32)  # ties
    fitting = features.Items(np.empty((n, 0)), rng.integers(9, size=n), np.arange(n))
    judged = features.Items(np.empty((m, 0)), rng.integers(9, size=m), rng.integers(3, size=m))
    class_N, class_M, classes = features.class_numbers(fitting, judged)
    seen = sorted(set(fitting.label.tolist()))
    assert classes == len(seen) and [seen[c] for c in class_N] == fitting.label.tolist()
    score_MxC = score_MxC[:, :classes]
    right, of_class = [], {}
    for label, scores in zip(judged.label.tolist(), score_MxC.tolist()):
        mine = scores[seen.index(label)] if label in seen else None
        hit = mine == max(scores) and scores.count(mine) == 1
        right.append(hit)
        of_class.setdefault(label, []).append(hit)
    right_M = features.is_right(score_MxC, class_M)
    assert right_M.tolist() == right
    found = features.accuracy("it", right_M, judged)
    assert numbers(found) == pytest.approx(
        {
            "it/top1": np.mean(right),
            "it/mean_per_class": np.mean([np.mean(hits) for hits in of_class.values()]),
            "it/count": m,
        }
    )
    often = max(seen, key=lambda label: (fitting.label.tolist().count(label), -label))
    assert features.largest_class(class_N, class_M) == np.mean(judged.label == often)


PROBES: list[dict[str, Any]] = [
    {"name": "linear_probe", "method": "ridge"},
    {"name": "knn", "k": 3},
    {"name": "naive_bayes"},
    {"name": "few_shot", "shots": [1], "draws": 1},
    {"name": "episodes", "ways": 2, "shots": [1], "queries": 1, "episodes": 3},
]


def test_every_probe_of_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    tiny_config["eval"]["evaluators"] = [
        {**probe, "before_projection": before} for probe in PROBES for before in (False, True)
    ]
    with jax.set_mesh(one_device):
        built = build(experiment.stages(tiny_config)[0], one_device)
        model = built.model(built.init())
    embedded = model.embed("unseen_artist", ["image"])
    figures = numbers(model.judge(embedded))
    for probe in PROBES:
        for after in ("", "_before"):
            task = f"eval/unseen_artist/{probe['name']}_group{after}"
            assert figures.get(f"{task}/count", len(embedded.ids)) == len(embedded.ids)
            top1 = f"{task}/top1" if f"{task}/top1" in figures else f"{task}/top1@1"
            assert 0 <= figures[top1] <= 1
    assert model.kept.keys() == {
        ("train", "image", False),
        ("train", "image", True),
        ("unseen_artist", "image", True),
    }

"""Embedding arithmetic against literal loops, by hand, and by a real model."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import arithmetic
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE
from mmcl.mesh import data_mesh

NAMES = ["red", "light_blue", "green", "grey"]


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(z_NxD: Any, things: Any, colours: Any) -> Embedded:
    n = len(things)
    return Embedded(
        split="val",
        z={"image": np.asarray(z_NxD, np.float32)},
        labels={
            "concept": np.asarray(things, np.int32),
            "colour": np.asarray(colours, np.int32),
        },
        shown={"image": list(np.zeros((n, 2, 2, 3), np.uint8))},
        ids=[f"record {i}" for i in range(n)],
        label_names={"colour": NAMES},
    )


def evaluate(embedded: Embedded, z_AxD: Any, **options: Any) -> dict[str, float]:
    words = dict(zip((name.replace("_", " ") for name in NAMES), np.asarray(z_AxD, np.float32)))
    model: Any = SimpleNamespace(encode=lambda _, prompts: np.stack([words[p] for p in prompts]))
    found = numbers(arithmetic.evaluate(embedded, model, **{"attribute": "colour", **options}))
    return {name.removeprefix("arithmetic_colour/"): one for name, one in found.items()}


def literal(
    z_NxD: np.ndarray,
    things: Sequence[int],
    colours: Sequence[int],
    z_AxD: np.ndarray,
    scale: float,
) -> list[int]:
    """The rank of every query."""
    ranks = []
    for i, (thing, colour) in enumerate(zip(things, colours)):
        for wanted in sorted({c for t, c in zip(things, colours) if t == thing} - {colour}):
            query = [
                float(z) + scale * (float(b) - float(a))
                for z, a, b in zip(z_NxD[i], z_AxD[colour], z_AxD[wanted])
            ]
            length = sum(x * x for x in query) ** 0.5
            score, right = {}, {}
            for j in range(len(things)):
                if j != i:
                    score[j] = sum(a * float(b) for a, b in zip(query, z_NxD[j])) / length
                    right[j] = (things[j], colours[j]) == (thing, wanted)
            best = max(score[j] for j in score if right[j])
            gaps = [score[j] - best + TIE for j in score if not right[j]]
            hypothesis.assume(all(abs(gap) > 5e-7 for gap in gaps))  # rounding decides
            ranks.append(1 + sum(gap > 0 for gap in gaps))
    return ranks


@hypothesis.given(
    st.integers(2, 40),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_equals_literal_loops(n: int, kinds: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    things, colours = rng.integers(kinds, size=n), rng.integers(4, size=n)
    things[:2], colours[:2] = 0, [0, 1]
    z_NxD, z_AxD = unit(rng.normal(size=(n, 6))), unit(rng.normal(size=(4, 6)))
    args = z_NxD, things.tolist(), colours.tolist(), z_AxD
    ranks, unmoved = literal(*args, scale), literal(*args, 0)
    found = evaluate(split(z_NxD, things, colours), z_AxD, scale=scale, at=(1, 3))
    for k in (1, 3):
        assert found[f"recall@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]))
        assert found[f"unmoved@{k}"] == pytest.approx(np.mean([rank <= k for rank in unmoved]))
        assert found[f"gain@{k}"] == pytest.approx(found[f"recall@{k}"] - found[f"unmoved@{k}"])
    assert found["queries"] == len(ranks) and found["gallery"] == n


def test_a_space_of_sums_is_solved() -> None:
    """Thing plus colour: the arithmetic is exact, and without it most wrong colours tie."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    things, colours = np.divmod(np.arange(32), 4)
    embedded = split(unit(axes[things] + axes[10 + colours]), things, colours)
    found = evaluate(embedded, axes[10:14], scale=2**-0.5)
    assert found["recall@1"] == 1 and found["unmoved@1"] == 0 and found["gain@1"] == 1
    assert found["queries"] == 32 * 3 and found["chance@1"] == pytest.approx(1 / 31)


def test_chance_of_several_right_answers() -> None:
    embedded = split(unit(np.random.default_rng(1).normal(size=(4, 3))), [0, 0, 0, 1], [0, 1, 1, 2])
    found = evaluate(embedded, np.eye(4)[:, [0, 1, 2]][[0, 1, 2, 2]], at=(1,))
    # one query has two right answers among three, two have one
    assert found["queries"] == 3
    assert found["chance@1"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)


def test_collapsed_and_cancelled_queries_find_nothing() -> None:
    z_NxD = np.tile(np.eye(4)[0], (12, 1))
    embedded = split(z_NxD, np.arange(12) // 2, np.arange(12) % 2)
    axes = np.eye(4)
    for words in (axes[[0, 0, 0, 0]], axes):
        found = evaluate(embedded, words)
        assert found["recall@1"] == found["unmoved@1"] == 0


def test_things_are_the_clusters() -> None:
    embedded = split(np.eye(4), [5, 5, 9, 9], [0, 1, 0, 1])
    model: Any = SimpleNamespace(encode=lambda _, prompts: np.eye(4)[: len(prompts)])
    figure = arithmetic.evaluate(embedded, model, attribute="colour")["arithmetic_colour/recall@1"]
    assert isinstance(figure, PerItem) and figure.cluster_N is not None
    assert figure.cluster_N.tolist() == [5, 5, 9, 9]


def test_devices_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    embedded = split(
        unit(rng.normal(size=(150, 8))), rng.integers(30, size=150), rng.integers(4, size=150)
    )
    z_AxD = unit(rng.normal(size=(4, 8)))
    one = evaluate(embedded, z_AxD)
    monkeypatch.setattr(arithmetic, "ROWS", 50)
    assert evaluate(embedded, z_AxD) == one
    with jax.set_mesh(data_mesh()):
        assert evaluate(embedded, z_AxD) == one


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    """Other artists' drawings of what one artist has drawn."""
    tiny_config["eval"] = {
        "splits": ["train"],
        "evaluators": [{"name": "arithmetic", "attribute": "artist", "templates": ["by {}"]}],
        "batch_size": 16,
    }
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    found = model.evaluate(model.embed("train"))
    name = "eval/train/arithmetic_artist"
    assert found[f"{name}/queries"] > found[f"{name}/gallery"] > 24
    assert 0 <= found[f"{name}/recall@10"] <= 1


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(attribute="color"), "label 'color' have no names: only those of"),
        (dict(label="thing"), "no label 'thing' in 'val'"),
        (dict(modality="sound"), "no modality 'sound' in 'val'"),
        (dict(label="colour"), "no 'colour' of 'val' occurs with two values of 'colour'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        evaluate(split(np.eye(4), [0, 0, 1, 1], [0, 1, 0, 1]), np.eye(4), **options)
    assert message in str(error.value)


def test_a_diverged_model_gets_no_numbers() -> None:
    bad = np.full((4, 4), np.nan)
    with pytest.raises(InputError, match="4 of 4 'image' .* diverged"):
        evaluate(split(bad, [0, 0, 1, 1], [0, 1, 0, 1]), np.eye(4))

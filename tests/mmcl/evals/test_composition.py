"""The scores of pairs against their formula in plain Python, and by hand."""

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
from mmcl.evals import composition
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import PerItem, numbers
from mmcl.evals.pairs import TIE


def unit(z_NxD: Any) -> np.ndarray:
    z_NxD = np.asarray(z_NxD, np.float64)
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(image: Any, text: Any, pairs: Any) -> Embedded:
    n = len(pairs)
    return Embedded(
        split="val",
        z={"image": np.asarray(image, np.float32), "text": np.asarray(text, np.float32)},
        labels={"concept": np.arange(n, dtype=np.int32), "pair": np.asarray(pairs, np.int32)},
        shown={"image": np.zeros((n, 2, 2, 3), np.uint8), "text": ["the same words"] * n},
        ids=[f"record {i}" for i in range(n)],
        label_names={},
    )


def evaluate(embedded: Embedded, **options: Any) -> dict[str, float]:
    found = numbers(composition.evaluate(embedded, None, **options))
    return {name.removeprefix("composition_pair/"): one for name, one in found.items()}


@hypothesis.given(st.integers(1, 25), st.integers(0, 4), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=100, deadline=None)
def test_equals_the_formula(pairs: int, alone: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation([*range(pairs), *range(pairs), *range(90, 90 + alone), -1, -1, -1])
    image, text = (unit(rng.normal(size=(len(labels), 4))) for _ in "ab")
    texts, images, groups = [], [], []
    for value in range(pairs):
        a, b = np.flatnonzero(labels == value)
        s = {
            (c, i): sum(float(x) * float(y) for x, y in zip(text[c], image[i]))
            for c in (a, b)
            for i in (a, b)
        }
        ours = [s[a, a] - s[b, a], s[b, b] - s[a, b], s[a, a] - s[a, b], s[b, b] - s[b, a]]
        hypothesis.assume(all(abs(gap - TIE) > 1e-7 for gap in ours))  # rounding decides
        texts.append(ours[0] > TIE and ours[1] > TIE)
        images.append(ours[2] > TIE and ours[3] > TIE)
        groups.append(texts[-1] and images[-1])
    found = evaluate(split(image, text, labels))
    assert found["text"] == pytest.approx(np.mean(texts))
    assert found["image"] == pytest.approx(np.mean(images))
    assert found["group"] == pytest.approx(np.mean(groups))
    assert found["count"] == pairs


def test_random_embeddings_reach_chance() -> None:
    """Cosines in many dimensions are independent; a standard error is .0025."""
    rng = np.random.default_rng(0)
    image, text = (unit(rng.normal(size=(60000, 32))) for _ in "ab")
    found = evaluate(split(image, text, np.arange(60000) // 2))
    for score in ("text", "image", "group"):
        assert found[score] == pytest.approx(found[f"{score}_chance"], abs=0.01)


def test_known_values() -> None:
    def at(*degrees: float) -> np.ndarray:
        radians = np.radians(degrees)
        return np.stack([np.cos(radians), np.sin(radians)], axis=1)

    both = evaluate(split(at(0, 90), at(10, 80), [7, 7]))
    assert both["text"] == both["image"] == both["group"] == 1
    # caption 1 is nearest to both pictures, but each caption is nearest to its own
    one = evaluate(split(at(0, 30), at(-40, 20), [7, 7]))
    assert (one["text"], one["image"], one["group"]) == (0, 1, 0)
    other = evaluate(split(at(-40, 20), at(0, 30), [7, 7]))
    assert (other["text"], other["image"], other["group"]) == (1, 0, 0)


def test_ties_fail() -> None:
    same, differ = unit(np.ones((2, 2))), np.eye(2)
    for image, text in ((same, same), (same, differ), (differ, same)):
        found = evaluate(split(image, text, [0, 0]))
        assert found["text"] == found["image"] == found["group"] == 0


def test_pairs_are_the_clusters_and_modalities_have_their_names() -> None:
    embedded = split(np.eye(4), np.eye(4), [9, 3, 9, 3])
    embedded.z["sound"] = embedded.z.pop("image")
    figures = composition.evaluate(embedded, None, modality="sound")
    score = figures["composition_pair/sound"]
    assert isinstance(score, PerItem) and score.cluster_N is not None
    assert score.cluster_N.tolist() == [3, 9] and score.value_N.all()


@pytest.mark.usefixtures("shared_builds")
def test_a_real_model(tiny_config: dict[str, Any], one_device: Mesh) -> None:
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        model = stage.model(stage.init())
    embedded = model.embed("unseen_artist")
    embedded.labels["pair"] = np.arange(len(embedded.ids), dtype=np.int32) // 2
    found = evaluate(embedded)
    assert found["group"] <= min(found["text"], found["image"])
    assert found["count"] == len(embedded.ids) // 2


@pytest.mark.parametrize(
    "labels, options, message",
    [
        ([0, 0, 0, 1], {}, "'pair' 0 is that of 3 records of 'val': a pair has two"),
        ([0, 1, 2, -1], {}, "no two records of 'val' share a 'pair'"),
        ([0, 0, 1, 1], dict(pair="pairs"), "no label 'pairs' in 'val'. Did you mean 'pair'?"),
        ([0, 0, 1, 1], dict(modality="sound"), "no modality 'sound' in 'val'."),
        ([0, 0, 1, 1], dict(text="image"), "'image' is compared with itself"),
    ],
)
def test_what_is_wrong_is_named(labels: list[int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        evaluate(split(np.eye(4), np.eye(4), labels), **options)
    assert message in str(error.value)


def test_a_diverged_model_gets_no_numbers() -> None:
    with pytest.raises(InputError, match="2 of 2 'text' .* diverged"):
        evaluate(split(np.eye(2), np.full((2, 2), np.nan), [0, 0]))

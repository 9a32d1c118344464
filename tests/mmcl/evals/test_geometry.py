import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import geometry
from mmcl.evals.embedded import Embedded


def random_unit_rows(rng, n, d=6):
    z_NxD = rng.normal(size=(n, d)).astype(np.float32)
    return z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)


def split(z, captions):
    n = len(captions)
    return Embedded(
        split="held_out",
        z=z,
        labels={"concept": np.zeros(n, np.int32)},
        shown={name: np.zeros((n, 2, 2, 3), np.uint8) for name in z} | {"text": captions},
        ids=[f"record {i}" for i in range(n)],
        label_names={},
    )


def squared_distance(a_D, b_D):
    return sum((float(a) - float(b)) ** 2 for a, b in zip(a_D, b_D))


def literal_uniformity(z_NxD):
    pairs = [(i, j) for i in range(len(z_NxD)) for j in range(len(z_NxD)) if i != j]
    kernels = [math.exp(-2 * squared_distance(z_NxD[i], z_NxD[j])) for i, j in pairs]
    return math.log(sum(kernels) / len(kernels))


@hypothesis.given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=80, deadline=None)
def test_equals_literal_loops(n, strings, seed):
    rng = np.random.default_rng(seed)
    z = {name: random_unit_rows(rng, n) for name in ("image", "text")}
    captions = [f"caption {c}" for c in rng.integers(strings, size=n)]
    metrics = geometry.evaluate(split(z, captions), None)
    a, b = z["image"], z["text"]
    means = [[sum(float(row[d]) for row in rows) / n for d in range(6)] for rows in (a, b)]
    expected = {
        "geometry/image_text/gap": math.sqrt(squared_distance(*means)),
        "geometry/image_text/alignment": sum(map(squared_distance, a, b)) / n,
    }
    if n > 1:
        expected["geometry/image/uniformity"] = literal_uniformity(a)
    first = [i for i, caption in enumerate(captions) if caption not in captions[:i]]
    if len(first) > 1:
        expected["geometry/text/uniformity"] = literal_uniformity(b[first])
    assert metrics == pytest.approx(expected, abs=1e-6)


def test_known_values():
    east, north = np.eye(2, dtype=np.float32)
    z = {"image": np.stack([east, -east]), "text": np.stack([north, north])}
    metrics = geometry.evaluate(split(z, ["a", "b"]), None)
    assert metrics == pytest.approx(
        {
            "geometry/image_text/gap": 1,
            "geometry/image_text/alignment": 2,
            "geometry/image/uniformity": -8,  # opposite: squared distance 4
            "geometry/text/uniformity": 0,  # collapsed
        }
    )


def test_equal_embeddings_have_no_gap_whatever_their_captions_share():
    z_NxD = random_unit_rows(np.random.default_rng(0), 4)[[0, 0, 0, 1]]
    metrics = geometry.evaluate(split({"image": z_NxD, "text": z_NxD}, ["a", "a", "a", "b"]), None)
    assert metrics["geometry/image_text/gap"] == metrics["geometry/image_text/alignment"] == 0


def test_every_two_of_three_modalities():
    rng = np.random.default_rng(1)
    z = {name: random_unit_rows(rng, 3) for name in ("image", "text", "audio")}
    metrics = geometry.evaluate(split(z, list("abc")), None)
    pairs = ["image_text", "image_audio", "text_audio"]
    expected = {f"geometry/{pair}/{key}" for pair in pairs for key in ("gap", "alignment")}
    assert metrics.keys() == expected | {f"geometry/{name}/uniformity" for name in z}


def test_block_size_changes_nothing(monkeypatch):
    z_NxD = random_unit_rows(np.random.default_rng(2), 41).astype(np.float64)
    whole = geometry.uniformity(z_NxD)
    for block in (1, 7, 40):
        monkeypatch.setattr(geometry, "BLOCK", block)
        assert geometry.uniformity(z_NxD) == pytest.approx(whole, abs=1e-12)


def test_many_items_are_sampled_alike_each_time(monkeypatch):
    z_NxD = random_unit_rows(np.random.default_rng(3), 600)
    embedded = split({"image": z_NxD, "text": z_NxD}, [f"{i}" for i in range(600)])
    exact = geometry.evaluate(embedded, None)
    sizes, uniformity = [], geometry.uniformity
    monkeypatch.setattr(geometry, "MOST", 200)
    monkeypatch.setattr(
        geometry,
        "uniformity",
        lambda z_NxD: sizes.append(len(np.unique(z_NxD, axis=0))) or uniformity(z_NxD),
    )
    sampled = geometry.evaluate(embedded, None)
    assert sizes == [200, 200]
    assert sampled == geometry.evaluate(embedded, None)
    key = "geometry/image/uniformity"
    assert sampled[key] != exact[key]
    assert sampled[key] == pytest.approx(exact[key], abs=0.1)


def test_a_diverged_model_gets_no_numbers():
    z = {"image": np.eye(2), "text": np.full((2, 2), np.nan)}
    with pytest.raises(InputError, match="2 of 2 'text' .* diverged"):
        geometry.evaluate(split(z, ["a", "b"]), None)

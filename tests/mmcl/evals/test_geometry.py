import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import geometry
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh


def random_unit_rows(rng, n, d=6):
    z_NxD = rng.normal(size=(n, d)).astype(np.float32)
    return z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)


def evaluate(*args, **options):
    return numbers(geometry.evaluate(*args, None, **options))


def split(z, captions, groups=None):
    n = len(captions)
    return Embedded(
        split="held_out",
        z=z,
        labels={"concept": np.zeros(n, np.int32)}
        | ({} if groups is None else {"group": np.asarray(groups, np.int32)}),
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


def literal_tolerance(z_NxD, classes):
    alike = [
        sum(float(x) * float(y) for x, y in zip(z_NxD[i], z_NxD[j]))
        for i, j in itertools.permutations(range(len(z_NxD)), 2)
        if classes[i] == classes[j]
    ]
    return sum(alike) / len(alike) if alike else None


def literal_rank(z_NxD):
    s_D = np.linalg.svd(np.asarray(z_NxD, np.float64) - np.mean(z_NxD, axis=0, dtype=np.float64))[1]
    p_D = [s / sum(s_D) for s in s_D if s > 1e-5]
    return math.exp(-sum(p * math.log(p) for p in p_D))


@hypothesis.given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=60, deadline=None)
def test_equals_literal_loops(n, strings, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(4, size=n)
    z = {name: random_unit_rows(rng, n) for name in ("image", "text")}
    captions = [f"caption {c}" for c in rng.integers(strings, size=n)]
    metrics = evaluate(split(z, captions, groups))
    a, b = z["image"], z["text"]
    means = [[sum(float(row[d]) for row in rows) / n for d in range(6)] for rows in (a, b)]
    expected = {
        "geometry/image_text/gap": math.sqrt(squared_distance(*means)),
        "geometry/image_text/alignment": sum(map(squared_distance, a, b)) / n,
    }
    first = [i for i, caption in enumerate(captions) if caption not in captions[:i]]
    for name, rows, those in (("image", a, list(range(n))), ("text", b, first)):
        if len(those) > 1:
            expected[f"geometry/{name}/uniformity"] = literal_uniformity(rows[those])
            expected[f"geometry/{name}/effective_rank"] = literal_rank(rows[those])
            tolerance = literal_tolerance(rows[those], groups[those])
            if tolerance is not None:
                expected[f"geometry/{name}/tolerance"] = tolerance
    assert metrics == pytest.approx(expected, abs=3e-6)


def test_what_records_lack_has_no_part_in_it():
    """Pairs are the records that have both, items are what there is; the rest may be anything."""
    rng = np.random.default_rng(5)
    z = {name: random_unit_rows(rng, 9) for name in ("image", "text")}
    captions, groups = [f"{i // 2}" for i in range(9)], np.arange(9) % 2
    embedded = split({name: rows.copy() for name, rows in z.items()}, captions, groups)
    has = {"image": np.arange(9) > 1, "text": np.arange(9) < 7}
    for name, has_N in has.items():
        embedded.present[name] = has_N
        embedded.z[name][~has_N] = np.nan
    both = has["image"] & has["text"]

    def part(has_N):
        those = np.flatnonzero(has_N)
        rows = {name: rows[those] for name, rows in z.items()}
        return evaluate(split(rows, [captions[i] for i in those], groups[those]))

    expected = {key: value for key, value in part(both).items() if "image_text" in key}
    for name, has_N in has.items():
        figures = part(has_N).items()
        expected |= {key: value for key, value in figures if f"/{name}/" in key}
    assert evaluate(embedded) == pytest.approx(expected)
    alignment = geometry.evaluate(embedded, None)["geometry/image_text/alignment"]
    assert len(alignment.cluster_N) == len(alignment.value_N) == both.sum()
    embedded.present["image"] = ~has["text"]
    embedded.z["image"] = z["image"]
    assert not any("image_text" in key for key in evaluate(embedded))


def test_known_values():
    east, north = np.eye(2, dtype=np.float32)
    z = {"image": np.stack([east, -east]), "text": np.stack([north, north])}
    metrics = evaluate(split(z, ["a", "b"]))
    assert metrics == pytest.approx(
        {
            "geometry/image_text/gap": 1,
            "geometry/image_text/alignment": 2,
            "geometry/image/uniformity": -8,  # opposite: squared distance 4
            "geometry/image/effective_rank": 1,
            "geometry/text/uniformity": 0,  # collapsed
            "geometry/text/effective_rank": 1,
        },
        abs=1e-6,
    )


def test_equal_embeddings_have_no_gap_whatever_their_captions_share():
    z_NxD = random_unit_rows(np.random.default_rng(0), 4)[[0, 0, 0, 1]]
    metrics = evaluate(split({"image": z_NxD, "text": z_NxD}, ["a", "a", "a", "b"]))
    assert metrics["geometry/image_text/gap"] == metrics["geometry/image_text/alignment"] == 0


def test_every_two_of_three_modalities():
    rng = np.random.default_rng(1)
    z = {name: random_unit_rows(rng, 3) for name in ("image", "text", "audio")}
    metrics = evaluate(split(z, list("abc")))
    pairs = ["image_text", "image_audio", "text_audio"]
    expected = {f"geometry/{pair}/{key}" for pair in pairs for key in ("gap", "alignment")}
    of_one = {f"geometry/{name}/{key}" for name in z for key in ("uniformity", "effective_rank")}
    assert metrics.keys() == expected | of_one


def test_ranks_of_known_shapes():
    assert geometry.effective_rank(np.eye(5)) == pytest.approx(4)  # a simplex
    assert geometry.effective_rank(np.ones((7, 3)) / np.sqrt(3)) == 1
    line = np.outer(np.linspace(-1, 1, 9), [0.6, 0.8])
    assert geometry.effective_rank(line) == pytest.approx(1)


def test_devices_change_nothing():
    rng = np.random.default_rng(2)
    z = {name: random_unit_rows(rng, 301) for name in ("image", "text")}
    embedded = split(z, [str(i % 150) for i in range(301)], np.arange(301) % 7)
    one = evaluate(embedded)
    with jax.set_mesh(data_mesh()):
        assert evaluate(embedded) == pytest.approx(one, abs=2e-6)


def test_a_diverged_model_gets_no_numbers():
    z = {"image": np.eye(2), "text": np.full((2, 2), np.nan)}
    with pytest.raises(InputError, match="2 of 2 'text' .* diverged"):
        evaluate(split(z, ["a", "b"]))

import dataclasses
import math
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.built_stage import build
from mmcl.evals import zeroshot
from mmcl.evals.embedded import Embedded
from mmcl.evals.figure import numbers
from mmcl.mesh import data_mesh


def unit(z_NxD):
    return (z_NxD / np.linalg.norm(z_NxD, axis=1, keepdims=True)).astype(np.float32)


def split(z_NxD, groups, names, modality="image", shown=None):
    n = len(groups)
    return Embedded(
        split="held_out",
        z={modality: z_NxD},
        labels={"group": np.asarray(groups, np.int32), "concept": np.arange(n, dtype=np.int32)},
        shown={modality: np.zeros((n, 2, 2, 3), np.uint8) if shown is None else shown},
        ids=[f"record {i}" for i in range(n)],
        label_names={"group": names},
    )


def evaluate(embedded, encode, scale=None, **options):
    """Of a function, or of what has one."""
    encode = getattr(encode, "encode", encode)
    model = SimpleNamespace(encode=encode, logit_scale=scale)
    return numbers(zeroshot.evaluate(embedded, model, **options))


class Encoder:
    """Gives every new prompt a random unit vector and remembers what it was asked."""

    def __init__(self, d=8, seed=0):
        self.rng, self.d, self.known, self.calls = np.random.default_rng(seed), d, {}, []

    def encode(self, modality, prompts):
        self.calls.append((modality, list(prompts)))
        for prompt in prompts:
            if prompt not in self.known:
                self.known[prompt] = unit(self.rng.normal(size=(1, self.d)))[0]
        return np.stack([self.known[prompt] for prompt in prompts])


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(1, 8))
    n = draw(st.integers(1, 20))
    names = [f"class {c}" for c in range(classes)]
    templates = ["{}", "a picture of {}", "{}, drawn"][: draw(st.integers(1, 3))]
    embedded = split(unit(rng.normal(size=(n, 8))), rng.integers(classes, size=n), names)
    embedded.labels["artist"] = rng.integers(-1, 3, size=n)
    return embedded, templates, draw(st.integers(0, 1000)), draw(st.sampled_from([1.0, 10, 100]))


@hypothesis.given(problems())
@hypothesis.settings(max_examples=100, deadline=None)
def test_equals_literal_loops(problem):
    embedded, templates, seed, scale = problem
    encode = Encoder(seed=seed)
    metrics = evaluate(embedded, encode, scale, templates=templates, group="artist")
    names, group = embedded.label_names["group"], embedded.labels["group"]
    classes = []
    for name in names:
        rows = [encode.known[template.format(name)] for template in templates]
        mean = [sum(float(row[d]) for row in rows) / len(rows) for d in range(8)]
        length = math.sqrt(sum(x * x for x in mean))
        classes.append([x / length for x in mean])
    top1, top5, of_class, of_artist, bins = 0, 0, {}, {}, {}
    for z_D, right, artist in zip(embedded.z["image"], group, embedded.labels["artist"]):
        scores = [sum(float(a) * b for a, b in zip(z_D, row)) for row in classes]
        order = sorted(range(len(names)), key=lambda c: -scores[c])
        top1 += order[0] == right
        top5 += right in order[:5]
        hit = order[0] == right
        of_class.setdefault(int(right), []).append(hit)
        of_artist.setdefault(int(artist), []).append(hit)
        powers = [math.exp(scale * (score - max(scores))) for score in scores]
        confidence = max(powers) / sum(powers)
        nearest_edge = round(confidence * 15) / 15
        hypothesis.assume(len(names) == 1 or abs(confidence - nearest_edge) > 1e-4 * confidence)
        bins.setdefault(math.ceil(confidence * 15), []).append((hit, confidence))
    n = len(group)
    worst = min(sorted(of_artist), key=lambda artist: np.mean(of_artist[artist]))
    expected = {
        "zeroshot_group/top1": top1 / n,
        "zeroshot_group/mean_per_class": np.mean([np.mean(hits) for hits in of_class.values()]),
        "zeroshot_group/chance": 1 / len(names),
        "zeroshot_group/count": n,
        "zeroshot_group/worst_group": np.mean(of_artist[worst]),
        "zeroshot_group/worst_group_count": len(of_artist[worst]),
    }
    error = metrics.pop("zeroshot_group/calibration_error")
    assert error == pytest.approx(
        sum(len(b) * abs(np.mean([h for h, _ in b]) - np.mean([c for _, c in b]))
            for b in bins.values()) / n,
        abs=2e-5,  # scale 100 times the rounding of cosines
    )  # fmt: skip
    if len(names) > 5:
        expected["zeroshot_group/top5"] = top5 / n
    assert metrics == pytest.approx(expected, abs=1e-12)


def test_prompts_are_clean_names_in_every_template():
    encode = Encoder()
    embedded = split(np.eye(8, dtype=np.float32)[:2], [0, 1], ["Food_&_Drink", "{x}  animals "])
    templates = ["{}", "a {} {{icon}}"]
    evaluate(embedded, encode, text="caption", templates=templates)
    prompts = ["Food & Drink", "a Food & Drink {{icon}}", "{x} animals", "a {x} animals {{icon}}"]
    assert encode.calls == [("caption", prompts)]


def test_the_prompts_of_a_class_are_averaged_and_made_unit():
    rows = {"x": [1, 0], "the x": [0, 1], "y": [-1, 0], "the y": [-1, 0]}
    z_CxD = zeroshot.class_embeddings(
        ["x", "y"], ["{}", "the {}"], lambda prompts: np.array([rows[p] for p in prompts])
    )
    np.testing.assert_allclose(z_CxD, [[math.sqrt(0.5), math.sqrt(0.5)], [-1, 0]])


def test_a_collapsed_model_names_nothing():
    row_D = Encoder(seed=3).encode("text", ["one"])[0]
    embedded = split(np.tile(row_D, (30, 1)), np.arange(30) % 6, list("abcdef"))
    metrics = evaluate(embedded, lambda _, prompts: np.tile(row_D, (len(prompts), 1)))
    assert metrics["zeroshot_group/top1"] == metrics["zeroshot_group/top5"] == 0


def test_classes_weigh_alike_in_mean_per_class_and_absent_ones_not_at_all():
    z_NxD = np.eye(3, dtype=np.float32)[[0, 0, 0, 0]]
    embedded = split(z_NxD, [0, 0, 0, 1], ["a", "b", "c"])
    metrics = evaluate(embedded, lambda *_: np.eye(3, dtype=np.float32))
    assert metrics["zeroshot_group/top1"] == 0.75
    assert metrics["zeroshot_group/mean_per_class"] == 0.5


def test_calibration_of_known_confidences():
    confidence_N = np.array([0.25, 0.25, 0.9, 0.9, 0.9, 0.9, 1.0])
    hit_N = np.array([False, True, True, True, False, True, True])
    apart = [2 * abs(0.5 - 0.25), 4 * abs(0.75 - 0.9), 0]
    assert zeroshot.calibration_error(confidence_N, hit_N) == pytest.approx(sum(apart) / 7)


def test_two_classes_at_a_known_angle():
    east, north = np.eye(2, dtype=np.float32)
    embedded = split(np.stack([east, east]), [0, 1], ["a", "b"])
    metrics = evaluate(embedded, lambda *_: np.stack([east, north]), math.log(3))
    assert metrics["zeroshot_group/calibration_error"] == pytest.approx(0.25)  # 1/2 against 3/4
    assert "zeroshot_group/worst_group" not in metrics
    without = evaluate(embedded, lambda *_: np.stack([east, north]))
    assert "zeroshot_group/calibration_error" not in without


def test_a_collapsed_model_is_as_unsure_as_can_be():
    z_NxD = np.tile(np.float32([0.6, 0.8]), (30, 1))
    embedded = split(z_NxD, np.arange(30) % 6, list("abcdef"))
    metrics = evaluate(embedded, lambda _, prompts: z_NxD[: len(prompts)], 50.0)
    assert metrics["zeroshot_group/calibration_error"] == pytest.approx(1 / 6)  # nothing is right


def test_devices_change_nothing():
    rng = np.random.default_rng(4)
    z_NxD, z_CxD = (unit(rng.normal(size=(n, 16))) for n in (301, 90))
    one = zeroshot.confidence(z_NxD, z_CxD, 100.0)
    with jax.set_mesh(data_mesh()):
        np.testing.assert_allclose(zeroshot.confidence(z_NxD, z_CxD, 100.0), one, rtol=5e-5)
    logit_NxC = 100 * z_NxD.astype(np.float64) @ z_CxD.T
    expected = np.exp(logit_NxC.max(axis=1)) / np.exp(logit_NxC).sum(axis=1)
    np.testing.assert_allclose(one, expected, rtol=5e-5)


@pytest.mark.usefixtures("shared_builds")
@pytest.mark.parametrize("learned, scale", [(2.0, math.exp(2)), (9.0, 100.0)])
def test_a_real_model_and_its_scale(tiny_config, one_device, learned, scale):
    stage = build(experiment.stages(tiny_config)[0], one_device)
    with jax.set_mesh(one_device):
        state = stage.init()
    params = {**state.params, "objective": {"log_scale": jnp.float32(learned)}}
    model = stage.model(state._replace(params=params, ema=None))
    assert model.logit_scale == pytest.approx(scale)
    embedded = model.embed("unseen_artist")
    with jax.set_mesh(one_device):
        found = numbers(zeroshot.evaluate(embedded, model, group="subgroup"))
    assert found["zeroshot_group/worst_group"] <= found["zeroshot_group/top1"]
    assert 0 <= found["zeroshot_group/calibration_error"] <= 1
    bare = dataclasses.replace(model, params={**params, "objective": {}})
    assert bare.logit_scale is None


def test_equal_strings_are_one_item():
    shown = ["red", "red", "blue"]
    z_NxD = np.eye(2, dtype=np.float32)[[0, 0, 0]]
    embedded = split(z_NxD, [0, 0, 1], ["a", "b"], modality="name", shown=shown)
    encode = Encoder(d=2)
    encode.known = dict(zip("ab", np.eye(2, dtype=np.float32)))
    metrics = evaluate(embedded, encode, modality="name")
    assert metrics["zeroshot_group/count"] == 2
    assert metrics["zeroshot_group/top1"] == 0.5


@pytest.mark.parametrize("side", ["image", "class prompt"])
def test_a_diverged_model_gets_no_numbers(side):
    good, bad = np.eye(2, dtype=np.float32), np.full((2, 2), np.nan, np.float32)
    embedded = split(bad if side == "image" else good, [0, 1], ["a", "b"])
    with pytest.raises(InputError, match=f"2 of 2 '{side}' .* diverged"):
        evaluate(embedded, lambda *_: bad if side == "class prompt" else good)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(templates=["{}", "a picture"]), "must each hold '{}'"),
        (dict(templates=[]), "must each hold '{}'"),
        (dict(templates="a {}"), "must each hold '{}'"),
        (dict(label="concept"), r"'concept' have no names: only those of \['group'\]"),
        (dict(modality="sound"), "no modality 'sound'"),
        (dict(group="artist"), r"no label 'artist' in 'held_out': it has \['group', 'concept'\]"),
    ],
)
def test_wrong_options_are_named(options, message):
    embedded = split(np.eye(2, dtype=np.float32), [0, 1], ["a", "b"])
    with pytest.raises(InputError, match=message):
        evaluate(embedded, lambda *_: np.eye(2, dtype=np.float32), **options)

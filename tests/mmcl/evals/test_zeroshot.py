import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_pipelines.errors import InputError
from mmcl.evals import zeroshot
from mmcl.evals.embedded import Embedded


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


class Encoder:
    """Gives every new prompt a random unit vector and remembers what it was asked."""

    def __init__(self, d=8, seed=0):
        self.rng, self.d, self.known, self.calls = np.random.default_rng(seed), d, {}, []

    def __call__(self, modality, prompts):
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
    return embedded, templates, draw(st.integers(0, 1000))


@hypothesis.given(problems())
@hypothesis.settings(max_examples=100, deadline=None)
def test_equals_literal_loops(problem):
    embedded, templates, seed = problem
    encode = Encoder(seed=seed)
    metrics = zeroshot.evaluate(embedded, encode, templates=templates)
    names, group = embedded.label_names["group"], embedded.labels["group"]
    classes = []
    for name in names:
        rows = [encode.known[template.format(name)] for template in templates]
        mean = [sum(float(row[d]) for row in rows) / len(rows) for d in range(8)]
        length = math.sqrt(sum(x * x for x in mean))
        classes.append([x / length for x in mean])
    top1, top5, of_class = 0, 0, {}
    for z_D, right in zip(embedded.z["image"], group):
        scores = [sum(float(a) * b for a, b in zip(z_D, row)) for row in classes]
        order = sorted(range(len(names)), key=lambda c: -scores[c])
        top1 += order[0] == right
        top5 += right in order[:5]
        of_class.setdefault(int(right), []).append(order[0] == right)
    n = len(group)
    expected = {
        "zeroshot_group/top1": top1 / n,
        "zeroshot_group/mean_per_class": np.mean([np.mean(hits) for hits in of_class.values()]),
        "zeroshot_group/chance": 1 / len(names),
        "zeroshot_group/count": n,
    }
    if len(names) > 5:
        expected["zeroshot_group/top5"] = top5 / n
    assert metrics == pytest.approx(expected, abs=1e-12)


def test_prompts_are_clean_names_in_every_template():
    encode = Encoder()
    embedded = split(np.eye(8, dtype=np.float32)[:2], [0, 1], ["Food_&_Drink", "{x}  animals "])
    templates = ["{}", "a {} {{icon}}"]
    zeroshot.evaluate(embedded, encode, text="caption", templates=templates)
    prompts = ["Food & Drink", "a Food & Drink {{icon}}", "{x} animals", "a {x} animals {{icon}}"]
    assert encode.calls == [("caption", prompts)]


def test_the_prompts_of_a_class_are_averaged_and_made_unit():
    rows = {"x": [1, 0], "the x": [0, 1], "y": [-1, 0], "the y": [-1, 0]}
    z_CxD = zeroshot.class_embeddings(
        ["x", "y"], ["{}", "the {}"], lambda prompts: np.array([rows[p] for p in prompts])
    )
    np.testing.assert_allclose(z_CxD, [[math.sqrt(0.5), math.sqrt(0.5)], [-1, 0]])


def test_a_collapsed_model_names_nothing():
    row_D = Encoder(seed=3)("text", ["one"])[0]
    embedded = split(np.tile(row_D, (30, 1)), np.arange(30) % 6, list("abcdef"))
    metrics = zeroshot.evaluate(embedded, lambda _, prompts: np.tile(row_D, (len(prompts), 1)))
    assert metrics["zeroshot_group/top1"] == metrics["zeroshot_group/top5"] == 0


def test_classes_weigh_alike_in_mean_per_class_and_absent_ones_not_at_all():
    z_NxD = np.eye(3, dtype=np.float32)[[0, 0, 0, 0]]
    embedded = split(z_NxD, [0, 0, 0, 1], ["a", "b", "c"])
    metrics = zeroshot.evaluate(embedded, lambda *_: np.eye(3, dtype=np.float32))
    assert metrics["zeroshot_group/top1"] == 0.75
    assert metrics["zeroshot_group/mean_per_class"] == 0.5


def test_equal_strings_are_one_item():
    shown = ["red", "red", "blue"]
    z_NxD = np.eye(2, dtype=np.float32)[[0, 0, 0]]
    embedded = split(z_NxD, [0, 0, 1], ["a", "b"], modality="name", shown=shown)
    encode = Encoder(d=2)
    encode.known = dict(zip("ab", np.eye(2, dtype=np.float32)))
    metrics = zeroshot.evaluate(embedded, encode, modality="name")
    assert metrics["zeroshot_group/count"] == 2
    assert metrics["zeroshot_group/top1"] == 0.5


@pytest.mark.parametrize("side", ["image", "class prompt"])
def test_a_diverged_model_gets_no_numbers(side):
    good, bad = np.eye(2, dtype=np.float32), np.full((2, 2), np.nan, np.float32)
    embedded = split(bad if side == "image" else good, [0, 1], ["a", "b"])
    with pytest.raises(InputError, match=f"2 of 2 '{side}' .* diverged"):
        zeroshot.evaluate(embedded, lambda *_: bad if side == "class prompt" else good)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(templates=["{}", "a picture"]), "must each hold '{}'"),
        (dict(templates=[]), "must each hold '{}'"),
        (dict(templates="a {}"), "must each hold '{}'"),
        (dict(label="concept"), r"'concept' have no names: only those of \['group'\]"),
        (dict(modality="sound"), "no modality 'sound'"),
    ],
)
def test_wrong_options_are_named(options, message):
    embedded = split(np.eye(2, dtype=np.float32), [0, 1], ["a", "b"])
    with pytest.raises(InputError, match=message):
        zeroshot.evaluate(embedded, lambda *_: np.eye(2, dtype=np.float32), **options)

"""From a record to an example, from examples to a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.pipeline import Pipeline, first_usable, stack

SEED = (0, 1, 2, 3)


def letters(value, *, rng, train):
    """A word as codes, padded to 4; in training shuffled."""
    codes = np.array([ord(letter) for letter in value], np.int32)
    codes = rng.permutation(codes) if train else codes
    mask = np.arange(4) < len(codes)
    return {"value": np.pad(codes, (0, 4 - len(codes))), "mask": mask, "raw": value}


def noisy(value, *, rng, train):
    return {"value": value + rng.normal(size=value.shape).astype(np.float32) * train}


def as_it_is(value, *, rng, train):
    return {"value": value}


class Source:
    label_names = {"concept": ["a", "b"]}

    def __init__(self, *records):
        self.records = records
        self.read = []

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.read.append(index)
        return self.records[index]


def record(id="r", **entries):
    return {"id": id, "word": "cab", "tone": np.ones(3, np.float32), "concept": 1} | entries


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b, strict=not isinstance(a, str))


PIPELINE = Pipeline({"word": [letters], "tone": [noisy]})


def test_an_example_has_all_of_its_record():
    example = PIPELINE(record(group=np.int64(7)), 5, seed=SEED, train=False)
    assert example.keys() == {"id", "index", "present", "word", "tone", "concept", "group"}
    assert_same(example["word"]["value"], np.array([99, 97, 98, 0], np.int32))
    assert_same(example["word"]["mask"], np.array([True, True, True, False]))
    assert example["word"]["raw"] == "cab"
    assert_same(example["tone"], {"value": np.ones(3, np.float32)})
    assert_same(example["present"], {"word": np.True_, "tone": np.True_})
    assert example["id"] == "r"
    for name, value in {"index": 5, "concept": 1, "group": 7}.items():
        assert_same(example[name], np.int32(value))


def test_transforms_are_applied_in_turn():
    twice = Pipeline({"word": [lambda v, **_: v + "b", lambda v, **_: v * 2, letters]})
    source = Source()
    chained = Pipeline(twice.transforms, source).apply("word", "a", seed=SEED, train=False)
    assert chained["raw"] == "abab"


def test_chance_is_keyed_by_seed_and_modality():
    def draw(name, seed):
        def transform(value, *, rng, train):
            return {"value": rng.random()}

        pipeline = Pipeline({name: [transform]})
        return float(pipeline({"id": "r", name: 0}, 0, seed=seed, train=True)[name]["value"])

    seeds = [SEED, (1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4), (1, 0, 2, 3)]
    draws = {draw(name, seed) for seed in seeds for name in ("word", "tone")}
    assert len(draws) == 2 * len(seeds)
    assert draw("word", SEED) == draw("word", SEED)


def test_one_modality_does_not_move_the_chance_of_another():
    alone = Pipeline({"tone": [noisy]}, Source())
    together = PIPELINE(record(), 0, seed=SEED, train=True)
    assert_same(alone(record(), 0, seed=SEED, train=True)["tone"], together["tone"])


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("missing", [{"word": None}, {}])
def test_a_missing_modality_is_zeros_in_the_shapes_of_the_others(missing, train):
    lacking = {"id": "r", "tone": np.ones(3, np.float32), "concept": 0, **missing}
    source = Source(lacking, lacking, record("s"), lacking)
    pipeline = Pipeline(PIPELINE.transforms, source)
    there = pipeline(source[2], 2, seed=SEED, train=train)
    example = pipeline(lacking, 0, seed=SEED, train=train)
    assert_same(example["present"], {"word": np.False_, "tone": np.True_})
    zeros = {"value": np.zeros(4, np.int32), "mask": np.zeros(4, bool), "raw": ""}
    assert_same(example["word"], zeros)
    batch = stack([there, example])
    assert_same(batch["present"]["word"], np.array([True, False]))
    assert batch["word"]["value"].shape == (2, 4)


def test_the_shapes_of_a_missing_modality_are_those_of_evaluation_or_training():
    def shown(value, *, rng, train):
        return {"value": value} if train else {"value": value, "raw": value}

    source = Source({"id": "r", "concept": 0}, {"id": "s", "concept": 1, "tone": np.ones(2)})
    pipeline = Pipeline({"tone": [shown]}, source)
    for train in (True, False, True):
        batch = stack([pipeline(r, 0, seed=SEED, train=train) for r in source.records])
        assert ("raw" in batch["tone"]) is not train


def test_the_source_is_searched_once_and_evenly():
    """35,000 records without the modality and one near the end: found, then remembered."""
    full = record()

    class Large(Source):
        def __len__(self):
            return 35_000

        def __getitem__(self, index):
            self.read.append(index)
            return full if index >= 34_990 else {"id": str(index)}

    pipeline = Pipeline({"word": [letters]}, source := Large())
    for _ in range(3):
        pipeline({"id": "x", "concept": 1}, 0, seed=SEED, train=True)
    assert 10_000 <= len(source.read) < 20_000
    assert len(set(source.read)) == len(source.read)


def test_a_modality_that_no_record_has_is_refused():
    transforms = {"wrod": [letters]}
    for pipeline in (Pipeline(transforms, Source(record())), Pipeline(transforms)):
        with pytest.raises(InputError, match=r"'r', wrod: no record .* 'wrod'"):
            pipeline({"id": "r", "concept": 1}, 0, seed=SEED, train=True)


def test_a_modality_that_nobody_asked_for_is_left_out():
    source = Source(record())
    example = Pipeline({"word": [letters]}, source)(source[0], 0, seed=SEED, train=True)
    assert example.keys() == {"id", "index", "present", "word", "concept"}


@pytest.mark.parametrize("value", [1.5, "b", None, np.float32(1), [1], 2**31, np.zeros((90, 2))])
@pytest.mark.parametrize("source", [None, Source()])
def test_a_label_that_is_no_integer_is_refused(value, source):
    pipeline = Pipeline(PIPELINE.transforms, source)
    with pytest.raises(Fault, match=r"^bad_label: its label 'concept' is ") as raised:
        pipeline(record(concept=value), 0, seed=SEED, train=True)
    assert raised.value.kind == "bad_label" and "\n" not in str(raised.value)


def test_a_declared_label_that_is_missing_is_refused():
    lacking = {key: value for key, value in record().items() if key != "concept"}
    with pytest.raises(Fault, match=r"^bad_label: its label 'concept' is None"):
        Pipeline(PIPELINE.transforms, Source())(lacking, 0, seed=SEED, train=True)


def test_an_error_in_a_transform_names_record_and_modality():
    def divide(value, *, rng, train):
        return 1 // 0

    def refuse(value, *, rng, train):
        raise InputError("no word.")

    with pytest.raises(ZeroDivisionError) as raised:
        Pipeline({"word": [divide]})(record(), 0, seed=SEED, train=True)
    assert raised.value.__notes__ == ["This was record 'r', its word."]
    with pytest.raises(InputError, match=r"^Record 'r', word: no word\.$"):
        Pipeline({"word": [refuse]})(record(), 0, seed=SEED, train=True)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"a": st.integers(-9, 9), "b": st.fixed_dictionaries({"c": st.text(max_size=3)})}
        ),
        min_size=1,
        max_size=5,
    )
)
def test_stack_keeps_the_structure(examples):
    batch = stack([{"a": np.int32(e["a"]), "b": e["b"]} for e in examples])
    assert_same(batch["a"], np.array([e["a"] for e in examples], np.int32))
    assert batch["b"]["c"].dtype == object
    assert batch["b"]["c"].tolist() == [e["b"]["c"] for e in examples]


def test_stack_names_what_is_ragged():
    pipeline = Pipeline({"tone": [as_it_is]})
    ragged = [
        pipeline({"id": id, "tone": np.zeros(n)}, 0, seed=SEED, train=True)
        for id, n in [("p", 3), ("q", 3), ("r", 4)]
    ]
    with pytest.raises(InputError, match=r"tone\.value' is \(3,\) in .*'p' and \(4,\) in 'r'"):
        stack(ragged)
    other = Pipeline({"tone": [noisy, lambda v, **_: {"values": v["value"]}]})
    renamed = other({"id": "q", "tone": np.zeros(3)}, 0, seed=SEED, train=True)
    with pytest.raises(InputError, match=r"tone' is \['value'\] in .*'p' and \['values'\] in 'q'"):
        stack([ragged[0], renamed])


def test_pictures_to_be_shown_may_differ_in_size():
    raws = [np.zeros((2, 3)), np.ones((4, 3)), np.ones((2, 3))]
    batch = stack([{"image": {"value": np.zeros(2), "raw": raw}} for raw in raws])
    assert batch["image"]["value"].shape == (3, 2)
    assert batch["image"]["raw"].shape == (3,)
    for a, b in zip(batch["image"]["raw"], raws):
        assert_same(a, b)
    assert stack([{"raw": raws[0]}, {"raw": raws[2]}])["raw"].shape == (2, 2, 3)


def masked(value, *, rng, train):
    return {"value": np.zeros(2), "mask": np.array([value > 0, False])}


@pytest.mark.parametrize(
    "entries, kind, reason",
    [
        ({"word": " "}, "empty", "word: there is nothing in it"),
        ({"tone": np.float32([1, np.nan, 2])}, "not_finite", "tone: there are NaN or infinite"),
        ({"tone": np.ones(4, np.float32)}, "wrong_shape", r"tone: value is float32 \(4,\), in "),
        ({"tone": np.ones(3)}, "wrong_shape", r"tone: value is float64 \(3,\), in other"),
        ({"bar": -1}, "empty", "bar: its transforms leave nothing of it"),
        ({"word": "abcde"}, "undecodable", "word: index can't contain negative values"),
        ({"raw": b"x" * 2000}, "too_large", "bytes, where 1000 are the limit"),
        ({"word": "ab" * 600}, "too_large", "bytes, where 1000 are the limit"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("train", [True, False])
def test_a_record_that_cannot_be_used(entries, kind, reason, train):
    source = Source(record("unfit", word="", bar=3), record("fit", bar=3))
    transforms = PIPELINE.transforms | {"bar": [masked]}
    pipeline = Pipeline(transforms, source, record_bytes=1000)
    pipeline(record(bar=1), 0, seed=SEED, train=train)
    with pytest.raises(Fault, match=reason) as raised:
        pipeline(record(**({"bar": 1} | entries)), 0, seed=SEED, train=train)
    assert raised.value.kind == kind


def test_a_record_without_an_id():
    with pytest.raises(Fault, match="there is no 'id'"):
        PIPELINE({"word": "a"}, 0, seed=SEED, train=True)


def test_the_first_that_can_be_used():
    def use(record, index):
        return PIPELINE(record, index, seed=SEED, train=True)["id"]

    unfit = record("unfit", tone=np.full(3, np.nan, np.float32))
    assert first_usable(Source(unfit, unfit, record("fit")), use) == "fit"
    with pytest.raises(InputError, match="can be used; the last: not_finite: tone: there are NaN"):
        first_usable(Source(*[unfit] * 100), use)
    with pytest.raises(InputError, match="there are none"):
        first_usable(Source(), use)

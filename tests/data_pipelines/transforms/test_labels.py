"""Label slots against sets: whose they are, and that others are nobody's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import transform_list
from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline, stack
from data_pipelines.sources.labelled import Labels
from data_pipelines.transforms.labels import sampled

TOKENS = [{"name": "tokens.utf8", "vocab_size": 259, "length": 8}]
POOL = tuple(f"tag{i}" for i in range(20))


def run(value, seed=0, train=True, **options):
    options = {"count": 6, "most_positives": 2, "longest": 4, "transforms": TOKENS} | options
    return sampled(value, rng=np.random.default_rng(seed), train=train, **options)


def words(found):
    """The strings in the slots that are there."""
    rows = zip(found["value"], found["mask"], found["present"])
    return [bytes((v[m][:-1] - 3).tolist()).decode() for v, m, there in rows if there]


@given(
    st.sets(st.integers(0, 19), min_size=1).flatmap(lambda own: st.permutations(sorted(own))),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 6),
    st.integers(0, 999),
)
def test_slots_in_training(own, count, most, longest, seed):
    most = min(most, count)
    labels = Labels(tuple(own), POOL)
    found = run(labels, seed, count=count, most_positives=most, longest=longest)
    ids, there = found["ids"], found["present"]
    used = ids[there].tolist()
    assert ids.shape == there.shape == (count,) and ids.dtype == np.int32
    assert (ids[~there] == -1).all() and len(set(used)) == len(used)
    assert words(found) == [POOL[i] for i in used]
    positives = min(most, longest, len(own))
    assert set(used[:positives]) <= set(own[:longest])
    assert not set(used[positives:]) & set(own)
    assert len(used) == min(count, positives + 20 - len(own))
    listed = own[:longest] + [-1] * (longest - len(own))
    assert found["positives"].tolist() == listed and found["positives"].dtype == np.int32
    assert found["raw"] == ", ".join(POOL[i] for i in own)
    assert not found["value"][~there].any() and not found["mask"][~there].any()


def test_which_are_drawn_is_chance_and_each_as_likely():
    labels = Labels((3, 5, 8), POOL)
    drawn = [run(labels, seed)["ids"] for seed in range(600)]
    own = np.bincount(np.concatenate([ids[:2] for ids in drawn]), minlength=20)
    assert set(np.flatnonzero(own)) == {3, 5, 8} and own[[3, 5, 8]].min() > 330
    others = np.bincount(np.concatenate([ids[2:] for ids in drawn]), minlength=20)
    expected = 600 * 4 / 17
    assert abs(np.delete(others, [3, 5, 8]) - expected).max() < 5 * np.sqrt(expected)
    assert {tuple(ids[:2]) for ids in drawn} == {(i, j) for i in (3, 5, 8) for j in (3, 5, 8)} - {
        (3, 3),
        (5, 5),
        (8, 8),
    }


def test_evaluation_has_the_same_shapes_and_no_chance():
    labels = Labels((7, 3, 5), POOL)
    first, second = run(labels, 0, train=False), run(labels, 1, train=False)
    assert first["ids"].tolist() == second["ids"].tolist() == [7, 3, -1, -1, -1, -1]
    assert words(first) == ["tag7", "tag3"] and first["positives"].tolist() == [7, 3, 5, -1]
    trained = run(labels)
    assert {k: np.shape(v) for k, v in first.items()} == {
        k: np.shape(v) for k, v in trained.items()
    }


def test_a_string_is_a_label_alone():
    found = run("tag9")
    assert words(found) == ["tag9"] and found["value"].shape == (1, 8)
    assert found["present"].tolist() == [True] and "ids" not in found


def test_through_a_pipeline_into_a_batch():
    section = {"name": "labels.sampled", "count": 3, "most_positives": 1, "longest": 2}
    functions = transform_list.build([section | {"transforms": TOKENS}], "config.transforms.label")
    records = [{"id": str(i), "label": Labels((i, i + 1), POOL)} for i in range(3)]
    records.append({"id": "3", "label": None})
    source = type("Source", (), {"label_names": {}, "__len__": lambda s: 4})
    source.__getitem__ = lambda s, i: records[i]
    pipeline = Pipeline({"label": functions}, source())
    batch = stack([pipeline(r, i, seed=(0, i), train=True) for i, r in enumerate(records)])
    label = batch["label"]
    assert label["value"].shape == (4, 3, 8) and label["ids"].shape == (4, 3)
    assert label["positives"][:3].tolist() == [[0, 1], [1, 2], [2, 3]]
    assert label["present"].all(axis=1).tolist() == [True, True, True, False]
    assert batch["present"]["label"].tolist() == [True, True, True, False]


@pytest.mark.parametrize("options", [{"most_positives": 7}, {"most_positives": 0}, {"longest": 0}])
def test_numbers_that_do_not_fit(options):
    with pytest.raises(InputError, match="most_positives=. should be from 1 to count=6"):
        run(Labels((1,), POOL), **options)


def test_nested_sections_are_checked_with_the_others():
    section = {"name": "labels.sampled", "count": 3, "most_positives": 1, "longest": 2}
    with pytest.raises(InputError, match=r"x\.transforms\.0\.name: .*'tokens\.utf8'"):
        transform_list.find(section | {"transforms": [{"name": "tokens.utf9"}]}, "x")

"""Kept against sorting and filtering of a list."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.ids import hashes
from data_pipelines.sources.kept import Source, wanted_number

pytestmark = pytest.mark.usefixtures("own_cache")
SCORES = st.lists(
    st.none() | st.sampled_from([0.0, 0.5, 1.0, math.nan]) | st.floats(allow_nan=False), min_size=1
)


def inner(scores: list) -> dict:
    ids = [f"r{i}" for i in range(len(scores))]
    return {"name": "arrays", "arrays": {"id": ids, "score": scores}}


def kept(**options) -> list[int]:
    source = Source(**options)
    found = [record["id"] for record in source]
    assert [r["id"] for r in pickle.loads(pickle.dumps(source))] == found
    assert [r["id"] for r in source.only("id")] == found
    return [int(id[1:]) for id in found]


def known(scores):
    return [i for i, s in enumerate(scores) if s is not None and not math.isnan(s)]


@settings(max_examples=40)
@given(SCORES, st.integers(1, 100))
def test_top_is_the_head_of_a_sorted_list_and_exact(scores, percent):
    number = len(scores) * percent // 100
    have = known(scores)
    if number == 0 or number > len(have):
        with pytest.raises(InputError, match="none of|have a score|no record has a number"):
            Source(source=inner(scores), field="score", top=percent / 100)
        return
    order = sorted(have, key=lambda i: (-scores[i], int(hashes([f"r{i}"])[0])))
    want = sorted(order[:number])
    assert kept(source=inner(scores), field="score", top=percent / 100) == want
    assert kept(source=inner(scores), field="score", top=number) == want


@settings(max_examples=30)
@given(SCORES, st.none() | st.floats(-2, 2), st.none() | st.floats(-2, 2))
def test_bounds_are_in(scores, low, high):
    if low is None and high is None:
        low = 0.5
    have = known(scores)
    want = [
        i for i in have if (low is None or scores[i] >= low) and (high is None or scores[i] <= high)
    ]
    options = {"source": inner(scores), "field": "score", "at_least": low, "at_most": high}
    if not want:
        with pytest.raises(InputError, match="none of|no record has a number"):
            Source(**options)
    else:
        assert kept(**options) == want


def test_equal_scores_are_drawn_by_id_wherever_the_records_stand(tmp_path):
    def some(order):
        arrays = {"id": [f"r{i}" for i in order], "s": [1.0] * 100}
        source = {"name": "arrays", "arrays": arrays}
        return {record["id"] for record in Source(source=source, field="s", top=30)}

    found = some(range(100))
    assert found == some(range(99, -1, -1)) and len(found) == 30
    assert 20 < np.mean([int(id[1:]) for id in found]) < 80


@pytest.mark.parametrize("top", [0.29, 0.57, 0.1, 1.0, 1 / 3, 1e-2])
def test_a_share_is_taken_as_it_is_written(top):
    assert wanted_number(top, 100) == math.floor(Fraction(str(top)) * 100)


def test_el2n_pruning_and_the_best_clip_scores_from_a_side_file(tmp_path):
    """P329 keeps the hard half, P359 the best 40 %: of the same records in whatever order."""
    scores = np.random.default_rng(0).random(100)
    order = np.random.default_rng(1).permutation(100)
    np.savez(tmp_path / "s.npz", key=[f"r{i}" for i in order], el2n=scores[order])
    source = inner([None] * 100)
    options = {"source": source, "side": f"{tmp_path}/s.npz", "key": "key", "field": "el2n"}
    for top, number in ((0.5, 50), (0.4, 40)):
        want = sorted(np.argsort(-scores)[:number].tolist())
        assert kept(**options, top=top) == want
    assert kept(**options, at_least=0.5) == np.flatnonzero(scores >= 0.5).tolist()


def test_ids_of_a_file(tmp_path):
    (tmp_path / "ids.txt").write_text("r7\n\nr2\nr2\nnobody\n")
    (tmp_path / "ids.csv").write_text("uid,other\nr7,1\nr2,2\n")
    source = inner([None] * 9)
    assert kept(source=source, ids=f"{tmp_path}/ids.txt") == [2, 7]
    assert kept(source=source, ids=f"{tmp_path}/ids.csv", key="uid") == [2, 7]


def test_a_split_goes_to_the_source_and_bad_rows_are_not_kept(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "n": 1}\n{\n{"id": "b", "n": 2}\n')
    section = {"name": "table", "files": {"val": f"{tmp_path}/a.jsonl"}}
    assert [r["id"] for r in Source(source=section, split="val", field="n", top=2)] == ["a", "b"]
    (tmp_path / "ids.txt").write_text("b\n")
    assert [r["id"] for r in Source(source=section, split="val", ids=f"{tmp_path}/ids.txt")] == [
        "b"
    ]
    with pytest.raises(IndexError):
        Source(source=section, split="val", field="n", top=2)[2]


def test_a_rule_may_be_for_one_split_only(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        "".join(f'{{"id": "r{i}", "s": {i}}}\n' for i in range(4))
    )
    (tmp_path / "val.jsonl").write_text("".join(f'{{"id": "r{i}", "s": {i}}}\n' for i in range(3)))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "val")}
    rule = {"source": {"name": "table", "files": files}, "field": "s", "at_least": 2}
    assert kept(**rule, split="train") == [2, 3] and kept(**rule, split="val") == [2]
    assert kept(**rule, splits=["train"], split="train") == [2, 3]
    assert kept(**rule, splits=["train"], split="val") == [0, 1, 2]


def test_a_rule_on_what_was_joined(tmp_path):
    (tmp_path / "s.csv").write_text("id,score\nr1,3\nr2,5\n")
    joined = {"name": "joined", "source": inner([0.0] * 4), "side": f"{tmp_path}/s.csv"}
    assert kept(source=joined, field="score", at_least=3) == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field": "score"}, "one rule"),
        ({"field": "score", "top": 1, "at_least": 2.0}, "one rule"),
        ({"top": 1}, "need a `field`"),
        ({"ids": "x.txt", "field": "score"}, "need a `field`, and ids has none"),
        ({"field": "score", "top": 0}, "kept.top: 0 should be"),
        ({"field": "score", "top": 1.5}, "kept.top: 1.5 should be"),
        ({"field": "score", "top": 4}, "4 records should be kept, but only 2 have a score"),
        ({"field": "scor", "top": 1}, "no record has a number as 'scor'"),
        ({"field": "id", "top": 1}, "'id' of 'r0' is 'r0', and should be a number"),
        ({"field": "score", "at_least": 9.0}, "none of 3 records is left"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(InputError, match=message):
        Source(source=inner([1.0, None, 2.0]), **options)

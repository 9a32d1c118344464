"""Table encoding against scikit-learn and NumPy."""

import json
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.transforms import table

ROWS = [
    {"age": 30, "height": "1.75", "town": "Bern", "smokes": True},
    {"age": 50, "height": 1.6, "town": "Oslo", "smokes": False},
    {"age": 40, "height": None, "town": "Oslo"},
    {"age": "", "height": float("nan"), "town": "", "smokes": True},
    {"age": 80.0, "height": 1.9, "town": b"Oslo", "smokes": None},
]
COLUMNS = {"numbers": ["age", "height"], "categories": ["town", "smokes"]}
quick = settings(max_examples=25, deadline=None)
sixteenths = (st.integers(-5, 5) | st.integers(-150, 150)).map(lambda i: i / 16)


def run(value, statistics, folder=None, train=True, **options):
    rng = np.random.default_rng(0)
    return table.encode(
        value, rng=rng, train=train, folder=folder, statistics=statistics, **options
    )


@pytest.fixture(scope="module")
def statistics():
    return table.fit(ROWS, **COLUMNS)


def test_fit_finds_scales_and_names_as_json(statistics):
    assert json.loads(json.dumps(statistics)) == statistics
    assert statistics["categories"] == {"town": ["Oslo", "Bern"], "smokes": ["True", "False"]}
    age, height = statistics["numbers"].values()
    assert age["mean"] == 50 and age["std"] == np.std([30, 50, 40, 80])
    assert [age["quantiles"][i] for i in (0, 50, 100)] == [30, 45, 80]
    np.testing.assert_allclose(height["mean"], 1.75)


def test_rare_categories_are_unknown():
    found = table.fit(ROWS, categories=["town"], least=2)
    assert found == {"numbers": {}, "categories": {"town": ["Oslo"]}}
    encoded = run({"town": "Bern"}, found)
    assert encoded["categories"].tolist() == [table.UNKNOWN] and encoded["mask"].tolist() == [True]


@pytest.mark.parametrize("train", [True, False])
def test_a_row_has_one_place_a_column(statistics, train):
    found = run(ROWS[0] | {"other": 3}, statistics, train=train)
    assert found.keys() == {"numbers", "categories", "mask", "raw"}
    std = np.std([30, 50, 40, 80])
    np.testing.assert_allclose(found["numbers"], [-20 / std, 0], atol=1e-6)
    assert found["numbers"].dtype == np.float32
    assert found["categories"].tolist() == [2, 1] and found["categories"].dtype == np.int32
    assert found["mask"].tolist() == [True] * 4 and found["mask"].dtype == bool
    assert found["raw"] == "age: 30, height: 1.75, town: Bern, smokes: True"


def test_what_is_missing_is_masked(statistics):
    found = run(ROWS[3], statistics)
    assert found["numbers"].tolist() == [0, 0]
    assert found["categories"].tolist() == [0, 1]
    assert found["mask"].tolist() == [False, False, False, True]
    assert found["raw"] == "smokes: True"
    assert run(ROWS[2], statistics)["mask"].tolist() == [True, False, True, False]
    assert run(ROWS[4], statistics)["categories"].tolist() == [1, 0]
    assert not run({}, statistics)["mask"].any()


def test_an_unknown_category_is_there(statistics):
    found = run({"town": "Rome"}, statistics)
    assert found["categories"].tolist() == [0, 0]
    assert found["mask"].tolist() == [False, False, True, False]


@quick
@given(
    data=st.lists(sixteenths, min_size=2, max_size=60, unique=True),
    asked=st.lists(sixteenths, min_size=1, max_size=10),
    quantiles=st.integers(2, 60),
)
def test_quantiles_are_scikits(data, asked, quantiles):
    """Where no numbers are equal: for those, theirs is at the mercy of rounding."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    theirs = preprocessing.QuantileTransformer(
        n_quantiles=quantiles, output_distribution="normal", subsample=None
    )
    theirs.n_quantiles = min(quantiles, len(data))  # theirs keeps no more than there are numbers
    want = theirs.fit(np.array(data, float)[:, None]).transform(np.array(asked, float)[:, None])
    rows = [{"x": x} for x in data]
    ours = table.fit(rows, numbers=["x"], quantiles=min(quantiles, len(data)))
    found = [run({"x": x}, ours, scaling="quantile")["numbers"][0] for x in asked]
    np.testing.assert_allclose(found, want[:, 0], atol=1e-4)


def test_equal_numbers_are_in_the_middle_of_themselves():
    """Of 0, 0, 0, 1, 2 the zeros are the lower half."""
    rows = [{"x": x} for x in (0, 0, 0, 1, 2)]
    found = table.fit(rows, numbers=["x"], quantiles=5)
    deviates = [run({"x": x}, found, scaling="quantile")["numbers"][0] for x in (-1, 0, 1, 2, 3)]
    np.testing.assert_allclose(deviates[1:3], [-0.67449, 0.67449], atol=1e-4)
    np.testing.assert_allclose(deviates[::3], [-5.199338, 5.199338], atol=1e-4)
    assert deviates[4] == deviates[3]


@quick
@given(counts=st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_among_equal_numbers_the_middle_one_counts(counts):
    """With as many quantiles as numbers, these are the numbers in order."""
    rows = [{"x": x} for x, count in enumerate(counts) for _ in range(count)]
    found = table.fit(rows, numbers=["x"], quantiles=len(rows))
    starts = np.cumsum([0, *counts])
    for x, count in enumerate(counts):
        middle = (starts[x] + (count - 1) / 2) / (len(rows) - 1)
        deviate = NormalDist().inv_cdf(min(max(middle, 1e-7), 1 - 1e-7))
        encoded = run({"x": x}, found, scaling="quantile")["numbers"][0]
        np.testing.assert_allclose(encoded, deviate, atol=1e-5)


def test_a_constant_column_is_zero():
    found = table.fit([{"x": 3}] * 4, numbers=["x"])
    for scaling in ("standard", "quantile"):
        assert run({"x": 3}, found, scaling=scaling)["numbers"].tolist() == [0]


def test_statistics_lie_in_the_sources_folder(statistics, tmp_path):
    (tmp_path / "statistics.json").write_text(json.dumps(statistics))
    (tmp_path / "other.json").write_text(json.dumps(table.fit(ROWS, numbers=["height"])))
    options = {"rng": np.random.default_rng(0), "train": True, "folder": tmp_path}
    np.testing.assert_equal(table.encode(ROWS[0], **options), run(ROWS[0], statistics))
    assert table.encode(ROWS[0], **options, statistics="other.json")["numbers"].shape == (1,)
    with pytest.raises(InputError, match=r"nowhere\.json is missing: write what table\.fit gives"):
        table.encode(ROWS[0], **options, statistics="nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        table.encode(ROWS[0], **options, statistics="broken.json")


@pytest.mark.parametrize(
    "statistics", [{}, {"numbers": {"x": {"mean": 1}}, "categories": {}}, {"numbers": 3}]
)
def test_statistics_of_another_kind_are_refused(statistics):
    with pytest.raises(InputError, match=r"statistics is not what table\.fit gives"):
        run(ROWS[0], statistics)


@pytest.mark.parametrize(
    "value", ["a row", [1, 2], {"age": "old"}, {"age": [3]}, {"age": 1e400}, {"age": 1e300}]
)
def test_what_is_no_row_is_a_fault(statistics, value):
    with pytest.raises(Fault) as caught:
        run(value, statistics)
    assert caught.value.kind == "bad_table"


def test_fit_refuses_a_column_without_numbers():
    with pytest.raises(InputError, match="no row has a number in 'size'"):
        table.fit(ROWS, numbers=["size"])
    with pytest.raises(Fault, match="Bern"):
        table.fit(ROWS, numbers=["town"])

"""A grid of runs: how values are read, what runs are called, how the table is sorted."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from mmcl.sweep import best_first, grid, metric_names, name, parse


@pytest.mark.parametrize(
    ("over", "values"),
    [
        ("config.x=1,2,3", ["1", "2", "3"]),
        ("config.x=a", ["a"]),
        ("config.x=[1,2],[3,4]", ["[1,2]", "[3,4]"]),
        ("config.x=[[1,2],(3,)], {'a':1,'b':2}", ["[[1,2],(3,)]", "{'a':1,'b':2}"]),
        ("config.x='a,b',\"c]\"", ["'a,b'", '"c]"']),
        ("config.x=a=b,c", ["a=b", "c"]),
    ],
)
def test_commas_inside_brackets_and_quotes_belong_to_a_value(over: str, values: list[str]) -> None:
    assert parse(over) == ("x", values)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("config.x", "give config.KEY=VALUE"),
        ("steps=1,2", "give config.KEY=VALUE"),
        ("config.=1", "give config.KEY=VALUE"),
        ("config.x=", "missing"),
        ("config.x=1,,2", "missing"),
        ("config.x=[1,2", "not closed"),
        ("config.x='1,2", "not closed"),
        ("config.x=1,2,1", "1 is given twice"),
    ],
)
def test_what_cannot_be_read_is_one_line(over: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        parse(over)
    assert "\n" not in str(raised.value)


def test_all_combinations_the_last_key_first() -> None:
    runs = grid(["config.a.x=1,2", "config.y=p,q,r"], Path("sweep"))
    assert [run.folder.name for run in runs] == [
        f"a.x={x},y={y}" for x in (1, 2) for y in ("p", "q", "r")
    ]
    assert runs[4] == ([("a.x", "2"), ("y", "q")], Path("sweep/a.x=2,y=q"))
    with pytest.raises(InputError, match=r"config\.y is given twice"):
        grid(["config.y=1", "config.x=1", "config.y=2"], Path("sweep"))


@given(st.lists(st.tuples(st.just("key"), st.text(min_size=1)), min_size=2, max_size=2))
def test_names_are_safe_and_of_one_run_only(pairs: list[tuple[str, str]]) -> None:
    first, second = name(pairs[:1]), name(pairs[1:])
    assert (first == second) == (pairs[0] == pairs[1])
    for made in (first, second):
        assert len(made) <= 120 and set(made) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,=+-"
        )
    assert name([("key", "gs://a/b"), ("x", "1e-3")]).startswith("key=gs_a_b,x=1e-3-")
    assert len(name([("key", "x" * 999)])) == 120


def test_metrics_of_the_table() -> None:
    final = {"step": 9, "train/loss": 1.0, "eval/a/recall@1": 0.5, "eval/a/recall@10": 0.7}
    assert metric_names(final, []) == ["eval/a/recall@1", "-train/loss"]
    assert metric_names({"train/loss": 1.0}, []) == ["-train/loss"]
    assert metric_names(final, ["-train/loss"]) == ["-train/loss"]
    with pytest.raises(InputError, match="no 'eval/a/recal@10'. Did you mean 'eval/a/recall@10'"):
        metric_names(final, ["-eval/a/recal@10"])


def test_the_best_comes_first_and_what_has_no_number_last() -> None:
    values = {"a": 0.2, "b": math.nan, "c": 0.9, "d": None, "e": 0.5}
    rows = [
        {"run": run, "metrics": {} if value is None else {"m": value}}
        for run, value in values.items()
    ]
    assert "".join(row["run"] for row in best_first(rows, "m")) == "ceabd"
    assert "".join(row["run"] for row in best_first(rows, "-m")) == "aecbd"

"""Values against annotations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.fits import check, described, fits, short

KINDS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats() | st.integers(),
    str: st.text(),
    None: st.none(),
}


def annotated(kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """From pairs of (annotation, strategy of its values) to pairs of larger ones."""
    return (
        st.tuples(kinds, kinds).map(lambda ab: (ab[0][0] | ab[1][0], ab[0][1] | ab[1][1]))
        | kinds.map(lambda a: (list[a[0]], st.lists(a[1])))
        | kinds.map(lambda a: (Sequence[a[0]], st.lists(a[1])))
        | kinds.map(lambda a: (tuple[a[0], ...], st.lists(a[1])))
        | st.tuples(kinds, kinds).map(
            lambda ab: (tuple[ab[0][0], ab[1][0]], st.tuples(ab[0][1], ab[1][1]).map(list))
        )
        | kinds.map(lambda a: (dict[str, a[0]], st.dictionaries(st.text(), a[1])))
    )


leaves = st.sampled_from([(k, v) for k, v in KINDS.items() if k is not None])
pairs = st.recursive(leaves, annotated, max_leaves=4)


@given(pairs, st.data())
def test_values_of_a_type_fit_it(pair: tuple[Any, st.SearchStrategy[Any]], data: Any) -> None:
    annotation, values = pair
    value = data.draw(values)
    assert fits(value, annotation)
    assert fits(value, annotation | None) and fits(None, annotation | None)
    assert fits([value], list[annotation]) and fits({"key": value}, Mapping[str, annotation])
    assert not fits([value], dict[str, annotation]) and not fits({"key": value}, list[annotation])
    assert not fits([value, 1j], list[annotation])
    check(value, annotation, "")


@pytest.mark.parametrize(
    "value, annotation",
    [
        (True, int),
        (True, float),
        (1, bool),
        (1.0, int),
        ("1", int),
        (1, str),
        (None, int),
        ("text", list[str]),
        ("text", Sequence[str]),
        ([1], tuple[int, int]),
        ([1, 2, 3], tuple[int, int]),
        ([[1, "a"]], list[tuple[str, int]]),
        ([1, "a"], list[int]),
        ({"a": "b"}, dict[str, int]),
        ([], dict[str, int]),
        ("c", Literal["a", "b"]),
        (1.5, int | str | None),
    ],
)
def test_what_does_not_fit(value: Any, annotation: Any) -> None:
    assert not fits(value, annotation)


@pytest.mark.parametrize("annotation", [Any, Callable[[int], int], object(), "int | Unknown"])
def test_other_types_are_taken_on_trust(annotation: Any) -> None:
    assert fits("anything", annotation)


@pytest.mark.parametrize(
    "annotation, words",
    [
        (int | None, "a whole number or None"),
        (float, "a number"),
        (list[str], "a list of strings"),
        (tuple[tuple[str, str], ...], "a list of lists of 2 strings"),
        (tuple[str, int], "a list (a string, a whole number)"),
        (str | Sequence[float], "a string or a list of numbers"),
        (dict[str, list[dict[str, Any]]], "a section, as dict(...)"),
        (list[dict[str, Any]], "a list of sections"),
        (Literal["a", "b"], "'a' or 'b'"),
        (list, "a list"),
    ],
)
def test_in_words(annotation: Any, words: str) -> None:
    assert described(annotation) == words


@pytest.mark.parametrize(
    "value, annotation, message",
    [
        (3, dict[str, list[int]], "x: 3 should be a section, as dict(...)."),
        ({"a": 3}, dict[str, list[int]], "x.a: 3 should be a list of whole numbers."),
        ({"a": [1, "b"]}, dict[str, list[int]], "x.a.1: 'b' should be a whole number."),
        ([["a", "b"], ["c"]], list[tuple[str, str]], "x.1: ['c'] should be a list of 2 strings."),
        ("z" * 500, int | None, f"x: '{'z' * 27}...{'z' * 28}' should be a whole number or None."),
    ],
)
def test_the_first_item_that_does_not_fit_is_named(
    value: Any, annotation: Any, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        check(value, annotation, "x")
    assert str(caught.value) == message


def test_a_long_value_is_cut_short() -> None:
    shown = short({"key": ["x" * 500] * 50, "other": {"a": {"b": {"c": list(range(99))}}}})
    assert len(shown) < 600 and "\n" not in shown

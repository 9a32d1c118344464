import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.shards import Shards


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.none() | st.integers(1, 30))
def test_numbering_goes_through_the_files(rows, limit):
    want = [(file, row) for file, n in enumerate(rows) for row in range(n)][:limit]
    paths = [f"/data/{i}.tar" for i in range(len(rows))]
    if not want:
        with pytest.raises(InputError, match="no record in /data/0.tar"):
            Shards(paths, rows, limit)
        return
    shards = Shards(paths, rows, limit)
    assert [shards(i) for i in range(len(shards))] == want
    for i in (-1, len(want)):
        with pytest.raises(IndexError):
            shards(i)


def test_names_do_not_depend_on_where_and_what_else():
    one, other = Shards(["/data/b.tar"], [3]), Shards(["gs://x/a.tar", "gs://x/b.tar"], [3, 3])
    assert one.name(0, 2) == other.name(1, 2) == "b.tar/2"
    other.check_names()


def test_files_of_one_name_are_refused():
    with pytest.raises(InputError, match="2 files are called a.tar.*`id`"):
        Shards(["/x/a.tar", "/y/a.tar", "/y/b.tar"], [1, 1, 1]).check_names()


def test_a_limit_of_nothing():
    with pytest.raises(InputError, match="limit=0 leaves no record"):
        Shards(["a"], [3], 0)

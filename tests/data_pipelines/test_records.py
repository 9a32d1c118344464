import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.records import Records, write

VALUES = st.recursive(
    st.text() | st.binary() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=6))
def test_round_trip(tmp_path, wanted):
    write(tmp_path / "r.arrayrecord", wanted)
    assert list(Records(tmp_path / "r.arrayrecord")) == wanted


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "r.arrayrecord", ({"n": n, "b": bytes([n % 256]) * n} for n in range(300)))
    return tmp_path / "r.arrayrecord"


def test_positions(path):
    records = Records(path)
    assert len(records) == 300
    assert records[299]["n"] == 299
    for index in (300, -1):
        with pytest.raises(IndexError):
            records[index]


def test_same_records_same_bytes(path, tmp_path):
    write(tmp_path / "again", list(Records(path)))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_full_disk_is_an_os_error():
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"), [{"b": b"x" * 100}])


def test_threads_share(path):
    records = Records(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: records[n % 300]["n"], range(3000)))
    assert found == [n % 300 for n in range(3000)]


def test_pickle_is_small_and_reopens(path):
    records = Records(path)
    assert records[5]["n"] == 5
    packed = pickle.dumps(records)
    assert len(packed) < 1000
    assert pickle.loads(packed)[7]["n"] == 7

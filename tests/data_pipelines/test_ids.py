import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.ids import Ids, hashes


@given(st.lists(st.text(max_size=5), max_size=30), st.text(max_size=5))
def test_find_is_the_index_in_the_list(listed, other):
    ids = Ids(listed)
    assert len(ids) == len(listed)
    for id in [*listed, other]:
        assert ids.find(id) == (listed.index(id) if id in listed else None)
    double = ids.double()
    if len(set(listed)) == len(listed):
        assert double is None
    else:
        one, two = double
        assert one != two and listed[one] == listed[two]


def test_hashes_are_for_good():
    want = [
        int.from_bytes(hashlib.blake2b(i.encode(), digest_size=8).digest(), "little") for i in "aü"
    ]
    found = hashes(iter("aü" * 40_000))
    assert found.dtype == np.uint64 and len(found) == 80_000
    assert found[:2].tolist() == found[-2:].tolist() == want


def test_twelve_bytes_an_id():
    ids = Ids(str(i) for i in range(1000))
    assert ids._hash_N.nbytes + ids._row_N.nbytes == 12_000

import pickle

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.open_source import open_source

SECTION = {"name": "synthetic", "records": 5, "pictures": {"image": 8}, "texts": {"text": 3}}


def test_a_record_is_a_function_of_its_number():
    source = open_source(SECTION)
    assert len(source) == 5
    again = pickle.loads(pickle.dumps(source))
    for i in range(5):
        record = source[i]
        assert record.keys() == {"id", "image", "text"} and record["id"] == str(i)
        assert record["image"].shape == (8, 8, 3) and record["image"].dtype == np.uint8
        assert type(record["text"]) is str and len(record["text"].split()) == 3
        np.testing.assert_array_equal(record["image"], again[i]["image"])
        assert record["text"] == again[i]["text"]
    assert len({record["image"].tobytes() for record in source}) == 5
    with pytest.raises(IndexError):
        source[5]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"records": 0}, "records is 0"),
        ({"pictures": {"image": 0}}, "image is 0"),
        ({"pictures": {}, "texts": {}}, "name an entry"),
    ],
)
def test_what_makes_no_record_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        open_source(SECTION | changes)

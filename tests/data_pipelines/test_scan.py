import pytest

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.scan import check_id, only, scanned
from data_pipelines.sources.arrays import Source


class Half:
    """Every second record cannot be used."""

    label_names: dict = {}

    def __init__(self, kind="bad_row", length=4):
        self.kind, self.length = kind, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index % 2 == 0:
            raise Fault(self.kind, "why")
        return {"id": str(index)}


def test_every_record_in_order_and_none_for_a_fault():
    assert list(scanned(Half())) == [None, {"id": "1"}, None, {"id": "3"}]


def test_only_what_is_needed_where_a_source_can_tell():
    source = Source(arrays={"a": [1, 2], "b": [3, 4]})
    assert list(scanned(source, "b")) == [{"id": "0", "b": 3}, {"id": "1", "b": 4}]
    assert only(source)[1] == {"id": "1"}
    half = Half()
    assert only(half, "x") is half


def test_an_id_that_no_record_has_is_refused():
    check_id(Half("missing_field"), "uid")
    none = Half("missing_field", length=1)
    with pytest.raises(InputError, match="id: there is no 'uid'"):
        check_id(none, "uid")
    check_id(none, None)

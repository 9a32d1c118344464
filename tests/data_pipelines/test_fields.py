import pytest

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.fields import Fields, look_up

RAW = {"json": {"caption": "a dog", "by": {"who": "me"}}, "seg.png": b"s", "jpg": None, "n": 3}
RAW |= {"json.by": {"you": "it"}}


@pytest.mark.parametrize(
    ("field", "want"),
    [
        ("n", 3),
        ("json.caption", "a dog"),
        ("json.by.you", "it"),
        ("seg.png", b"s"),
        ("jpg;seg.png", b"s"),
        ("json.title;json.caption", "a dog"),
        ("json.caption.x", None),
        ("png", None),
        ("seg", None),
    ],
)
def test_look_up(field, want):
    assert look_up(RAW, field) == want


def test_records_have_their_entries_and_identity():
    assert Fields(None, None).record({"id": 5, "a": 1}, "x/0") == {"id": "x/0", "a": 1}
    assert Fields(None, "id").record({"id": 5, "a": 1}, "x/0") == {"id": "5", "a": 1}
    chosen = Fields({"text": "json.caption", "image": "jpg"}, "json.by.you")
    assert chosen.record(RAW, "x/0") == {"id": "it", "text": "a dog", "image": None}
    assert chosen.only("id", "text").record(RAW, "x/0") == {"id": "it", "text": "a dog"}
    assert Fields(None, None).only("n").record(RAW, "x/0") == {"id": "x/0", "n": 3}
    with pytest.raises(Fault, match="'jpg', which is the id, is missing in x/0") as error:
        Fields(None, "jpg").record(RAW, "x/0")
    assert error.value.kind == "missing_field"


def test_names_of_labels_become_numbers():
    fields = Fields({"breed": "breed"}, None, {"breed": ["cat", "dog"]})
    assert [fields.record({"breed": b}, "x")["breed"] for b in ("dog", 1, None)] == [1, 1, None]
    with pytest.raises(Fault, match="'breed' is 'cow' in x, which is not one of") as error:
        fields.record({"breed": "cow"}, "x")
    assert error.value.kind == "bad_label"


def test_what_has_to_be_read():
    there = ["a", "json", "jpg", "b.c"]
    assert Fields(None, "a").heads(there) == there
    assert Fields({"x": "json.y", "z": "png;jpg"}, "b.c").heads(there) == ["json", "jpg", "b.c"]
    for fields, id, message in (
        ({"x": "jpgg"}, None, "fields.x: there is no 'jpgg'. Did you mean 'jpg'"),
        ({"x": "jpg"}, "key", "id: there is no 'key'"),
    ):
        with pytest.raises(InputError, match=message):
            Fields(fields, id).heads(there)
    with pytest.raises(InputError, match="fields.id: say it as id='key'"):
        Fields({"id": "key"}, None)

"""ArrayRecord against the records that were written."""

import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines import records
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.arrayrecord import Source

pytestmark = pytest.mark.usefixtures("own_cache")


def record(shard: int, i: int) -> dict:
    return {"id": f"{shard}-{i}", "text": {"en": [f"a {i}", "b"]}, "image": b"x" * 100, "n": i}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    for shard, n in enumerate([4, 1, 3]):
        path = tmp_path / f"data/r-{shard}.arrayrecord"
        records.write(path, (record(shard, i) for i in range(n)))
    return tmp_path / "data"


def raw(path, packed: list[bytes]) -> str:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for one in packed:
        writer.write(one)
    writer.close()
    return str(path)


def test_records_are_those_that_were_written_wherever_they_lie(folder, remote):
    want = [record(shard, i) for shard, n in enumerate([4, 1, 3]) for i in range(n)]
    for base in (folder, remote.put_folder(folder)):
        source = Source(files=[f"{base}/r-{i}.arrayrecord" for i in (2, 0, 1)])
        assert [source[i] for i in (6, 0, 7, 4)] == [want[i] for i in (6, 0, 7, 4)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda i, of=source: of[i % 8], range(80))) == want * 10
        assert list(pickle.loads(pickle.dumps(source))) == want
        assert list(Source(files=f"{base}/*", limit=5)) == want[:5]
        for i in (-1, 8):
            with pytest.raises(IndexError):
                source[i]


def test_fields_of_choice(folder):
    source = Source(
        files={"val": f"{folder}/r-1.*"},
        split="val",
        fields={"caption": "text.en", "n": "n"},
        id="n",
    )
    assert source[0] == {"id": "0", "caption": ["a 0", "b"], "n": 0}
    assert source.only("n")[0] == {"id": "0", "n": 0}
    nameless = folder / "none.arrayrecord"
    records.write(nameless, [{"a": 1}, {"a": 2}])
    assert Source(files=str(nameless))[1] == {"id": "none.arrayrecord/1", "a": 2}


def test_what_is_wrong_with_a_record_is_a_fault(folder):
    path = raw(folder / "bad", [records.msgpack.packb({"id": "a"}), b"\xc1", b"\x01", b"\x81"])
    source = Source(files=path)
    assert source[0] == {"id": "a"}
    for i in (1, 2, 3):
        with pytest.raises(Fault, match=f"bad/{i} is no") as error:
            source[i]
        assert error.value.kind == "bad_record"
    with pytest.raises(Fault, match="more than 99 bytes") as error:
        Source(files=f"{folder}/r-*", largest=99)[0]
    assert error.value.kind == "too_large"
    noise = [random.Random(i).randbytes(30_000) for i in range(9)]  # which no codec can compress
    records.write(folder / "cut", [{"id": f"{i}", "x": x} for i, x in enumerate(noise)])
    broken = bytearray((folder / "cut").read_bytes())
    at = broken.index(noise[5][9_000:9_100])
    broken[at : at + 10] = b"0123456789"
    (folder / "cut").write_bytes(broken)
    source = Source(files=f"{folder}/cut")
    with pytest.raises(Fault, match="cut/5: .*hash mismatch") as error:
        source[5]
    assert error.value.kind == "bad_record" and source[6]["id"] == "6"


def test_a_file_that_goes_is_a_fault(folder):
    source = Source(files=f"{folder}/r-*")
    (folder / "r-1.arrayrecord").unlink()
    with pytest.raises(Fault, match="r-1.arrayrecord/0") as error:
        source[4]
    assert error.value.kind == "vanished_shard"


def test_what_is_wrong_with_the_whole_is_said(folder):
    example = raw(folder / "examples", [b"\x0a\x0b\x0a\x09\x0a\x01a\x12\x04\x1a\x02\x0a\x00"])
    (folder / "noise").write_bytes(b"noise" * 50_000)
    for files, options, message in (
        (example, {}, "examples seems not to hold msgpack maps .*source 'tfds'"),
        (str(folder / "noise"), {}, "noise is no ArrayRecord"),
        (str(folder / "none"), {}, "none is missing"),
        (raw(folder / "empty", []), {}, "no record"),
        (f"{folder}/r-*", {"limit": 0}, "limit=0"),
    ):
        with pytest.raises(InputError, match=message) as error:
            Source(files=files, **options)
        assert "\n" not in str(error.value)


def test_files_of_one_name_need_an_id(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        records.write(tmp_path / name / "r", [{"key": name}])
    with pytest.raises(InputError, match="2 files are called r"):
        Source(files=f"{tmp_path}/*/r")
    found = [record["id"] for record in Source(files=f"{tmp_path}/*/r", id="key")]
    assert found == ["a", "b"]

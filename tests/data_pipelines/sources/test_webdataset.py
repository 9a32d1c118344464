"""Tars against the webdataset library, which reads them from the start to the end."""

import io
import json
import pickle
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.webdataset import Source

pytestmark = pytest.mark.usefixtures("own_cache")


def write(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(shard: int, n: int) -> list[tuple[str, bytes]]:
    """As img2dataset writes them; every third has no picture, every fourth no txt."""
    rng = random.Random(100 * shard + n)
    key = f"{shard:05d}{n:04d}" + "/very" * 40 * (n == 1)  # a name that needs a long header
    said = {"caption": f"caption {shard} {n} ü", "key": key, "similarity": rng.random()}
    members = [(f"{key}.json", json.dumps(said).encode())]
    if n % 3:
        members.insert(0, (f"{key}.JPG", rng.randbytes(rng.randrange(20_000))))
    if n % 4:
        members.append((f"{key}.txt", f"text {shard} {n} é".encode()))
    return [*members, (f"{key}.cls", b"7"), (f"{key}.seg.png", rng.randbytes(5))]


@pytest.fixture
def folder(tmp_path):
    for shard, size in enumerate([5, 1, 9]):
        members = [member for n in range(size) for member in sample(shard, n)]
        write(tmp_path / f"data/{shard:05d}.tar", [("README", b"no field"), *members])
    return tmp_path / "data"


def read_through(folder):
    """(tar, key, members) in order, by the webdataset library."""
    wds = pytest.importorskip("webdataset")
    for path in sorted(folder.glob("*.tar")):
        for found in wds.WebDataset(str(path), shardshuffle=False):
            members = {k: v for k, v in found.items() if not k.startswith("__")}
            yield path.name, found["__key__"], members


FIELDS = {"image": "jpg", "text": "json.caption", "n": "cls", "mask": "seg.png", "all": "json"}


def test_random_access_gives_what_reading_through_gives(folder):
    want = [
        {
            "id": f"{tar}/{key}",
            "image": members.get("jpg"),
            "text": json.loads(members["json"])["caption"],
            "n": 7,
            "mask": members["seg.png"],
            "all": json.loads(members["json"]),
        }
        for tar, key, members in read_through(folder)
    ]
    source = Source(files=f"{folder}/*.tar", fields=FIELDS)
    assert len(source) == len(want) == 15
    for i in random.Random(0).sample(range(15), 15):
        assert source[i] == want[i]
    for i in (-1, 15):
        with pytest.raises(IndexError):
            source[i]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: source[i % 15], range(150))) == want * 10
    assert [pickle.loads(pickle.dumps(source))[i] for i in range(15)] == want
    assert list(Source(files=f"{folder}/*.tar", fields=FIELDS, limit=4)) == want[:4]


def test_order_and_ids_do_not_depend_on_what_is_given_first_or_where_it_lies(folder, remote):
    want = list(Source(files=f"{folder}/*.tar"))
    url = remote.put_folder(folder)
    for base in (folder, url):
        backwards = [f"{base}/{shard:05d}.tar" for shard in (2, 0, 1)]
        assert list(Source(files=backwards)) == want
    [only] = [r for r in want if r["id"].startswith("00001.tar")]
    parted = Source(
        files={"train": f"{folder}/00001.tar"}, split="train", fields={"text": "json.caption"}
    )
    assert list(parted) == [{"id": only["id"], "text": only["text"]}]


def test_pictures_and_captions_are_found_unasked(folder, tmp_path):
    for found, (_, _, members) in zip(Source(files=f"{folder}/*.tar"), read_through(folder)):
        caption = members.get("txt", b"").decode() or json.loads(members["json"])["caption"]
        assert found == {"id": found["id"], "image": members.get("jpg"), "text": caption}
    sound = write(tmp_path / "sound.tar", [("a.flac", b"x"), ("a.txt", b"a bell")])
    assert Source(files=str(sound))[0] == {"id": "sound.tar/a", "text": "a bell"}
    write(tmp_path / "sound.tar", [("a.flac", b"x")])
    with pytest.raises(InputError, match=r"no image and no text.*\['flac'\]"):
        Source(files=str(sound))


def test_ids_of_choice(folder):
    keys = [key for _, key, _ in read_through(folder)]
    for id in ("__key__", "json.key"):
        assert [record["id"] for record in Source(files=f"{folder}/*.tar", id=id)] == keys
    with pytest.raises(InputError, match="id: there is no 'json.uid' in the first records"):
        Source(files=f"{folder}/*.tar", id="json.uid")
    source = Source(files=f"{folder}/*.tar", id="txt")  # every fourth has none
    assert source[1]["id"] == "text 0 1 é"
    with pytest.raises(Fault, match="'txt', which is the id, is missing in 00000.tar/0") as error:
        source[0]
    assert error.value.kind == "missing_field"


def test_only_what_is_asked_for_is_read(folder, remote):
    url = remote.put_folder(folder)
    source = Source(files=f"{url}/*.tar", fields=FIELDS)
    assert not remote.asked  # the index was streamed
    record = source[14]
    assert len(remote.asked) == 1 and remote.asked[0] < 40_000
    remote.asked.clear()
    assert source.only("id", "n")[14] == {"id": record["id"], "n": 7}
    assert remote.asked == [1]
    remote.asked.clear()
    assert [r["id"] for r in source.only("id")] == [f"{t}/{k}" for t, k, _ in read_through(folder)]
    assert not remote.asked
    Source(files=f"{url}/*.tar", fields=FIELDS)  # indexed already
    assert not remote.asked


def test_a_tar_that_changes_is_indexed_anew(folder):
    assert len(Source(files=f"{folder}/00001.tar")) == 1
    write(folder / "00001.tar", sample(1, 1) + sample(1, 2))
    assert [len(r["text"]) > 0 for r in Source(files=f"{folder}/00001.tar")] == [True, True]


def test_a_tar_that_goes_is_a_fault(folder, remote):
    url = remote.put_folder(folder)
    for base, remove in (
        (folder, lambda: (folder / "00001.tar").unlink()),
        (url, lambda: remote.store.pop("/bucket/00001.tar")),
    ):
        source = Source(files=f"{base}/*.tar")
        remove()
        with pytest.raises(Fault, match="00001.tar is missing") as error:
            source[5]
        assert error.value.kind == "vanished_shard"
        assert source[4]["id"].startswith("00000.tar") and source[6]["id"].startswith("00002.tar")


def huge_array() -> bytes:
    """Few bytes that say they are a petabyte."""
    file = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (2**47,)}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue() + bytes(80)


def test_bad_members_spoil_their_record_alone(tmp_path):
    path = write(
        tmp_path / "a.tar",
        [("0.txt", b"fine"), ("1.txt", b"\xff\xfe"), ("2.json", b"{"), ("3.txt", b"a")]
        + [("3.txt", b"b"), ("5.cls", b"x"), ("6.npy", b"\x93NUMPY"), ("7.txt", b"fine too")]
        + [("8.json", b"[" * 100_000), ("9.npy", huge_array())],
    )
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("4.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "0.txt"
        tar.addfile(link)
    fields = {"text": "txt;json.caption", "n": "cls", "z": "npy"}
    source = Source(files=str(path), fields=fields)
    said = {}
    for i in range(len(source)):
        try:
            said[source.only("id")[i]["id"]] = source[i]["text"]
        except Fault as fault:
            assert fault.kind == "bad_member"
            said[source.only("id")[i]["id"]] = fault.reason.split("(")[0].strip()
    assert said == {
        "a.tar/0": "fine",
        "a.tar/1": "txt of a.tar/1 is no txt",
        "a.tar/2": "json of a.tar/2 is no json",
        "a.tar/3": "txt of a.tar/3 is there twice",
        "a.tar/4": "txt of a.tar/4 is no plain file",
        "a.tar/5": "cls of a.tar/5 is no cls",
        "a.tar/6": "npy of a.tar/6 is no npy",
        "a.tar/7": "fine too",
        "a.tar/8": "json of a.tar/8 is no json",
        "a.tar/9": "npy of a.tar/9 is no npy",
    }


def test_arrays_are_arrays(tmp_path):
    file = io.BytesIO()
    np.save(file, np.arange(6.0).reshape(2, 3))
    path = write(tmp_path / "a.tar", [("0.npy", file.getvalue())])
    [record] = Source(files=str(path), fields={"z": "npy"})
    np.testing.assert_array_equal(record["z"], np.arange(6.0).reshape(2, 3))


def test_members_of_a_record_need_not_stand_together(tmp_path):
    path = write(tmp_path / "a.tar", [("0.jpg", b"0"), ("1.jpg", b"1"), ("0.txt", b"a")])
    assert list(Source(files=str(path))) == [
        {"id": "a.tar/0", "image": b"0", "text": "a"},
        {"id": "a.tar/1", "image": b"1", "text": None},
    ]


def test_a_huge_record_is_a_fault_before_it_is_read(folder, remote):
    source = Source(files=f"{remote.put_folder(folder)}/*.tar", largest=300)
    with pytest.raises(Fault, match="00000.tar/000000001.* has more than 300 bytes") as error:
        source[1]
    assert error.value.kind == "too_large" and not remote.asked
    assert source.only("text")[1]["text"]


@pytest.mark.parametrize(
    "how", ["cut", "cut at a border", "gz", "empty", "no bytes", "noise", "hit"]
)
def test_a_broken_tar_is_named(folder, how):
    path = folder / "00002.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        border = tar.getmembers()[12].offset
    broken = {
        "cut": lambda: path.write_bytes(whole[: border + 700]),
        "cut at a border": lambda: path.write_bytes(whole[:border]),
        "gz": lambda: path.write_bytes(b"\x1f\x8b" + whole),
        "empty": lambda: write(path, [("README", b"")]),
        "no bytes": lambda: path.write_bytes(b""),
        "noise": lambda: path.write_bytes(b"noise" * 1000),
        "hit": lambda: path.write_bytes(whole[:border] + b"#" * 512 + whole[border + 512 :]),
    }
    broken[how]()
    with pytest.raises(InputError, match="00002.tar ") as error:
        Source(files=f"{folder}/*.tar")
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_said(folder):
    for options, message in (
        ({"fields": {"image": "jpgg"}}, "fields.image: there is no 'jpgg'. Did you mean 'jpg'"),
        ({"id": "uid"}, "id: there is no 'uid'"),
        ({"limit": 0}, "limit=0"),
        ({"split": "train"}, "no split 'train'"),
    ):
        with pytest.raises(InputError, match=message):
            Source(files=f"{folder}/*.tar", **options)
    with pytest.raises(InputError, match="00007.tar is missing"):
        Source(files=f"{folder}/00007.tar")


def test_tars_of_one_name_need_an_id(folder, tmp_path):
    write(tmp_path / "other/00001.tar", [("a.txt", b"x"), ("a.json", b'{"key": "k"}')])
    both = [f"{folder}/00001.tar", f"{tmp_path}/other/00001.tar"]
    with pytest.raises(InputError, match="2 files are called 00001.tar"):
        Source(files=both)
    assert [record["id"] for record in Source(files=both, id="json.key")] == ["000010000", "k"]

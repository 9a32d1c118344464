"""A prepared data set, written here as TFDS would have, read by its library and by the source."""

import io
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.sources.tfds import Source

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.usefixtures("own_cache")
SHARDS = [3, 4]
HERE = Path(__file__).parents[3]


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), i, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tensorflow_datasets.proto import tf_example_pb2

    folder = tmp_path_factory.mktemp("toy") / "toy/1.0.0"
    folder.mkdir(parents=True)
    of = tfds.features
    features = of.FeaturesDict(
        {
            "image": of.Image(),
            "text": of.Text(),
            "label": of.ClassLabel(names=["cat", "dog"]),
            "captions": of.Sequence({"text": of.Text()}),
            "boxes": of.Sequence(of.BBoxFeature()),
            "z": of.Tensor(shape=(3,), dtype=np.float32),
            "score": of.Scalar(np.float32),
            "number": of.Scalar(np.int64),
        }
    )
    features.save_config(str(folder))
    for shard, n in enumerate(SHARDS):
        path = folder / f"toy-train.array_record-{shard:05d}-of-00002"
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for i in range(n):
            example = tf_example_pb2.Example()
            named = example.features.feature
            named["image"].bytes_list.value.append(png(10 * shard + i))
            named["text"].bytes_list.value.append(f"text {shard} {i} ü".encode())
            named["label"].int64_list.value.append(i % 2)
            named["captions/text"].bytes_list.value.extend([b"a"] * i)
            named["boxes"].float_list.value.extend([0.125, 0.25, 0.5, 0.75] * 2)
            named["z"].float_list.value.extend([i, 1.5, 2.5])
            named["score"].float_list.value.append(i / 4)
            named["number"].int64_list.value.append(10 * shard + i)
            writer.write(example.SerializeToString())
        writer.close()
    split = {
        "name": "train",
        "shardLengths": [str(n) for n in SHARDS],
        "numBytes": "1000",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    about = {"fileFormat": "array_record", "name": "toy", "version": "1.0.0", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(about))
    return folder


def ids(source: Source) -> list[str]:
    return [record["id"] for record in source]


def test_records_are_what_the_library_gives(folder):
    want = tfds.builder_from_directory(folder).as_data_source("train")
    source = Source(folder=str(folder), split="train")
    assert len(source) == len(want) == 7
    assert source.label_names == {"label": ["cat", "dog"]}
    for i in (6, 0, 3):
        found, other = source[i], want[i]
        pixels = np.asarray(Image.open(io.BytesIO(found["image"])))
        np.testing.assert_array_equal(pixels, other["image"])
        assert found["text"] == other["text"].decode()
        assert (found["label"], found["number"]) == (other["label"], other["number"])
        assert found["score"] == other["score"] and isinstance(found["score"], float)
        assert found["z"].dtype == np.float32
        np.testing.assert_array_equal(found["z"], other["z"])
        np.testing.assert_array_equal(found["boxes"], np.stack(other["boxes"]))
        assert len(found["captions"]["text"]) == len(other["captions"]["text"])
    assert source[4]["captions"]["text"] == ["a"]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: source[i % 7]["id"], range(70))) == ids(source) * 10
    assert ids(pickle.loads(pickle.dumps(source))) == ids(source)


def test_a_part_of_a_split_has_the_ids_of_the_whole(folder):
    whole = Source(folder=str(folder), split="train")
    assert ids(whole)[2:4] == [
        "toy-train.array_record-00000-of-00002/2",
        "toy-train.array_record-00001-of-00002/0",
    ]
    for split, part in (
        ("train[:50%]", slice(0, 4)),
        ("train[50%:]", slice(4, 7)),
        ("train[2:4]", slice(2, 4)),
    ):
        source = Source(folder=str(folder), split=split)
        assert ids(source) == ids(whole)[part]
        assert [r["number"] for r in source] == [r["number"] for r in whole][part]
    both = Source(folder=str(folder), split="train[:1]+train[6:]", limit=2)
    assert ids(both) == [ids(whole)[0], ids(whole)[6]]


def test_fields_of_choice(folder):
    fields = {"caption": "captions.text", "kind": "label"}
    source = Source(folder=str(folder), split="train", fields=fields, id="number")
    assert source[5] == {"id": "12", "caption": ["a", "a"], "kind": 0}
    assert source.label_names == {"kind": ["cat", "dog"]}
    assert source.only("kind")[5] == {"id": "12", "kind": 0}


def test_a_remote_one_is_copied_as_far_as_it_is_needed(folder, remote, tmp_path):
    url = remote.put_folder(folder)
    source = Source(folder=url, split="train[4:6]", fields={"n": "number"})
    assert [record["n"] for record in source] == [11, 12]
    copies = [path.name for path in (tmp_path / "cache").rglob("toy-*")]
    assert copies == ["toy-train.array_record-00001-of-00002"]
    assert len(Source(folder=url, split="train")) == 7


def test_tensorflow_is_not_imported(folder):
    code = (
        "import sys; from data_pipelines.sources.tfds import Source; "
        f"print(len(Source(folder={str(folder)!r}, split='train')[0]), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert done.stdout == "9 False\n", done.stderr


def test_what_is_wrong_is_said(folder, tmp_path):
    for options, message in (
        ({"split": "val"}, "split 'val': Unknown split 'val'. Should be one of .'train'."),
        ({"split": "train["}, "split format"),
        ({"split": "train", "folder": str(tmp_path)}, "Could not read dataset info"),
        ({"split": "train", "fields": {"a": "lable"}}, "fields.a: there is no 'lable'. .*'label'"),
    ):
        with pytest.raises(InputError, match=message) as error:
            Source(**{"folder": str(folder), **options})
        assert "\n" not in str(error.value)


def test_another_format_is_refused(folder, tmp_path):
    about = json.loads((folder / "dataset_info.json").read_text()) | {"fileFormat": "tfrecord"}
    (tmp_path / "toy/1.0.0").mkdir(parents=True)
    (tmp_path / "toy/1.0.0/dataset_info.json").write_text(json.dumps(about))
    (tmp_path / "toy/1.0.0/features.json").write_text((folder / "features.json").read_text())
    with pytest.raises(InputError, match="array_record"):
        Source(folder=str(tmp_path / "toy/1.0.0"), split="train")


def test_a_bad_record_is_a_fault(folder, tmp_path):
    copy = tmp_path / "toy/1.0.0"
    copy.mkdir(parents=True)
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    shard = copy / "toy-train.array_record-00000-of-00002"
    data = bytearray(shard.read_bytes())
    at = data.index(b"text 0 1")
    data[at : at + 8] = b"noise no"
    shard.write_bytes(data)
    source = Source(folder=str(copy), split="train")
    with pytest.raises(Fault, match="00000-of-00002/1: ") as error:
        source[1]
    assert error.value.kind == "bad_record" and source[2]["number"] == 2
    with pytest.raises(Fault, match="more than 10 bytes"):
        Source(folder=str(folder), split="train", largest=10)[0]

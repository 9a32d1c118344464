"""WebDataset tars, in the layout of img2dataset: `000000012.jpg`, `.txt` and `.json` are a record.

The picture `image` ends as its kind does and the text `text` in txt; other bytes end in their name
and kind (`speech.ogg`), and all the rest, the id too, is in the json.
"""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.portable import ending, holds_bytes

SOURCE = "webdataset"
ENDING = "tar"


def write(path: Path, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Write portable records into one tar; what the source needs to know beside `files`.

    Raises:
        InputError: bytes lie inside a list or mapping.
    """
    fields: dict[str, set[str]] = {}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, record in enumerate(records):
            rest: dict[str, Any] = {}
            for name, value in record.items():
                if isinstance(value, bytes):
                    kind = ending(value)
                    field = kind if name == "image" and kind != "bin" else f"{name}.{kind}"
                    _add(tar, f"{number:09d}.{field}", value)
                elif name == "text" and isinstance(value, str):
                    field = "txt"
                    _add(tar, f"{number:09d}.txt", value.encode())
                else:
                    if holds_bytes(value):
                        raise InputError(
                            f"'{name}' of record '{record['id']}' holds bytes in a list or mapping:"
                            " a tar has no place for them; --to arrayrecord or parquet have."
                        )
                    field, rest[name] = f"json.{name}", value
                fields.setdefault(name, set()).add(field)
            _add(tar, f"{number:09d}.json", json.dumps(rest, ensure_ascii=False).encode())
    named = {name: ";".join(sorted(some)) for name, some in fields.items() if name != "id"}
    return {"id": "json.id", "fields": named}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no user: the same records, the same tar
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))

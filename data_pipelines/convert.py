"""From one format to another: shard by shard, each read back before it counts.

    folder/train-00003-of-00012.tar   a finished shard
    folder/manifest.json              what is converted, and the facts of every finished shard
    folder/source.json                at the end: the section that opens it
    folder/rejected.jsonl             at the end: records that could not be read

A shard is written in a folder of another name, read through its own source, compared record by
record, and moved into place: whatever stops a conversion, the same call goes on with the shard that
was not finished.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines import names
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.open_source import open_source
from data_pipelines.pipeline import Source, read
from data_pipelines.portable import digest, portable

MANIFEST, SECTION, REJECTED = "manifest.json", "source.json", "rejected.jsonl"
THREADS = 4
_AHEAD = 64  # records that are read before they are written


class Converted(NamedTuple):
    section: dict[str, Any]  # that opens the folder, `files` as seen from it
    records: int
    rejected: list[dict[str, Any]]


def convert(
    section: Mapping[str, Any],
    folder: Path,
    to: str,
    *,
    shard: int = 10_000,
    advance: Callable[[int], None] = lambda records: None,
) -> Converted:
    """Write all records of a source into a folder, in another format.

    Args:
        section: of the source.
        folder: new, or of an earlier call with the same arguments, with which this one goes on.
        to: a module of `data_pipelines.writers`, or a dotted path to the user's own.
        shard: records of a file.
        advance: is told how many more records are done.

    Raises:
        InputError: a shard does not read back as it was written; the folder holds something else;
            or the format cannot hold a record.
    """
    write = names.find("data_pipelines.writers", to, "--to", face="write")
    writer = __import__(write.__module__, fromlist=["SOURCE"])
    source = open_source(section)
    call = {"from": _plain(section), "to": to, "shard": shard, "records": len(source)}
    done = _begun(folder, call)
    count = -(-len(source) // shard)
    stem = str(section.get("split") or "data").translate(str.maketrans("/[]:%+ ", "-------"))
    for number in range(count):
        name = f"{stem}-{number:05d}-of-{count:05d}.{writer.ENDING}"
        rows = range(number * shard, min((number + 1) * shard, len(source)))
        if name not in done or not _whole(folder / name, done[name]):
            done[name] = _shard(source, rows, folder, name, write, writer.SOURCE)
            _write_json(folder / MANIFEST, {**call, "shards": done})
        advance(len(rows))
    made: dict[str, Any] = {
        "name": writer.SOURCE,
        "files": f"{stem}-*-of-{count:05d}.{writer.ENDING}",
    }
    made |= _joined([one["options"] for one in done.values() if one["records"]])
    if source.label_names:
        made["label_names"] = {label: list(those) for label, those in source.label_names.items()}
    rejected = [reject for one in done.values() for reject in one["rejected"]]
    _write_json(folder / SECTION, made)
    if rejected:
        lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejected)
        _write(folder / REJECTED, lines)
    return Converted(made, sum(one["records"] for one in done.values()), rejected)


class _Records:
    """Some records of a source as portable ones, to be gone through as often as one likes."""

    def __init__(self, source: Source, rows: range):
        self._source, self._rows = source, rows
        self.rejected: dict[int, dict[str, Any]] = {}
        self.digests: list[bytes] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.digests = []
        for row, found in zip(self._rows, self._read()):
            if isinstance(found, Fault):
                reject = {"index": row, "kind": found.kind, "reason": found.reason}
                self.rejected[row] = reject
                continue
            self.digests.append(digest(found))
            yield found

    def _read(self) -> Iterator[dict[str, Any] | Fault]:
        def one(row: int) -> dict[str, Any] | Fault:
            try:
                record = portable(read(self._source, row))
            except Fault as fault:
                return fault
            return {name: value for name, value in record.items() if value is not None}

        waiting: deque[Future[dict[str, Any] | Fault]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            for row in self._rows:
                waiting.append(pool.submit(one, row))
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _shard(
    source: Source,
    rows: range,
    folder: Path,
    name: str,
    write: Callable[..., dict[str, Any]],
    kind: str,
) -> dict[str, Any]:
    """Write one shard, read it back, move it into place; its facts for the manifest."""
    records = _Records(source, rows)
    aside = folder / ".unfinished"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        options = write(aside / name, records)
        if records.digests:
            back = open_source({"name": kind, "files": str(aside / name), **options})
            _compare(back, records.digests, name)
        file = aside / name
        facts = {
            "records": len(records.digests),
            "bytes": file.stat().st_size,
            "sha256": _sha256(file),
            "content": hashlib.sha256(b"".join(records.digests)).hexdigest(),
            "options": options,
            "rejected": list(records.rejected.values()),
        }
        for path in sorted(aside.iterdir(), key=lambda path: path.is_file()):  # the shard last
            if path.is_dir():
                shutil.rmtree(folder / path.name, ignore_errors=True)
            path.rename(folder / path.name)
        return facts
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error}).") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _compare(back: Source, digests: Sequence[bytes], name: str) -> None:
    if len(back) != len(digests):
        raise InputError(f"{name} has {len(back)} records where {len(digests)} were written.")
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda row: digest(portable(read(back, row))), range(len(back)))
        for row, (one, wanted) in enumerate(zip(found, digests)):
            if one != wanted:
                raise InputError(
                    f"{name}: record {row} does not read back as it was written; this format cannot"
                    " hold it. Nothing of this shard was kept."
                )


def _begun(folder: Path, call: Mapping[str, Any]) -> dict[str, Any]:
    """The shards that an earlier call with the same arguments has finished.

    Raises:
        InputError: there is something else in the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [path.name for path in folder.iterdir() if path.name != ".unfinished"]
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}).") from error
    if not there:
        return {}
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        shards = dict(manifest.pop("shards"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{folder} is not empty, and no conversion: give another.") from None
    changed = [key for key in call if manifest.get(key) != call[key]]
    if changed:
        raise InputError(
            f"{folder} holds a conversion with another '{changed[0]}': give another folder."
        )
    return shards


def _whole(file: Path, facts: Mapping[str, Any]) -> bool:
    try:
        return file.stat().st_size == facts["bytes"] and _sha256(file) == facts["sha256"]
    except OSError:
        return False


def _joined(options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What every shard needs: lists and alternatives of all of them."""
    joined: dict[str, Any] = {}
    for one in options:
        for key, value in one.items():
            if isinstance(value, list):
                joined[key] = list(dict.fromkeys([*joined.get(key, ()), *value]))
            elif isinstance(value, Mapping):
                before = joined.setdefault(key, {})
                for name, field in value.items():
                    both = [*before.get(name, "").split(";"), *field.split(";")]
                    before[name] = ";".join(part for part in dict.fromkeys(both) if part)
            else:
                joined[key] = value
    return joined


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(section)))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).") from error

"""How the command line names data: an experiment, the section of a source, or files."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.files import braces, name_of
from mmcl import config as configs

ENDINGS = {
    "tar": "webdataset",
    "parquet": "parquet",
    "jsonl": "table",
    "ndjson": "table",
    "csv": "table",
    "tsv": "table",
    "arrayrecord": "arrayrecord",
    "array_record": "arrayrecord",
    "npz": "arrays",
    "npy": "arrays",
}
SECTION = "source.json"  # what `mmcl data convert` writes beside the data

Overrides = Iterable[tuple[str, str]]  # dotted key, value in text


def is_experiment(spec: str) -> bool:
    """Whether it is `FILE.py` or `FILE.py:ARG`."""
    return bool(re.search(r"\.py(:\w+)?$", spec))


def config_of(spec: str, split: str | None = None, overrides: Overrides = ()) -> dict[str, Any]:
    """A config with the section `source`: that of an experiment, with all the rest, or of files.

    Args:
        spec: an experiment; a JSON file with the section of a source, or a folder with one; a
            folder that TFDS prepared; or a path, brace range, glob or URL of files of one kind,
            told by the ending.
        split: the one to take, where it is not what the section says.
        overrides: of keys of the config, as `("source.limit", "5")`.

    Raises:
        InputError: nothing of that kind is there.
    """
    if is_experiment(spec):
        config = configs.load(spec, overrides)
    else:
        config = {"source": _of_files(spec)}
        for key, text in overrides:
            configs.override(config, key, text)
    if not isinstance(config.get("source"), Mapping):
        raise InputError(f"{spec}: its config has no section 'source'.")
    if split is not None:
        config["source"] = {**config["source"], "split": split}
    return config


def name_of_spec(spec: str) -> str:
    """A short name for a folder: `data/{000..009}.tar` -> `data-000..009`."""
    if is_experiment(spec):
        return configs.name(spec)
    plain = re.sub(r"^[a-z0-9]+://", "", spec.rstrip("/")).removesuffix(f"/{SECTION}")
    plain = re.sub(r"\.(" + "|".join(ENDINGS) + r")$", "", plain)
    parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
    return re.sub(r"[^\w.]+", "-", "-".join(parts[-2:])).strip("-.") or "data"


def _of_files(spec: str) -> Any:
    path = Path(spec)
    if path.is_dir():
        for file, read in ((SECTION, _section), ("dataset_info.json", _tfds)):
            if (path / file).is_file():
                return read(path / file)
        raise InputError(
            f"{spec} is a folder without {SECTION} or dataset_info.json: name the files in it, "
            f"as '{spec.rstrip('/')}/*.tar'."
        )
    if path.suffix == ".json":
        return _section(path)
    endings = {name_of(one).rpartition(".")[2].lower() for one in braces(spec)}
    kinds = {ENDINGS.get(ending) for ending in endings}
    if len(kinds) != 1 or None in kinds:
        raise InputError(
            f"What is '{spec}'? Files end in .{', .'.join(ENDINGS)}; else give an experiment, "
            "a section as a .json file, or a folder that TFDS prepared."
        )
    return {"name": kinds.pop(), "files": spec}


def _section(path: Path) -> Any:
    try:
        section = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON ({error}).") from error
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise InputError(f"{path} should hold the section of a source, with a 'name'.")
    files = section.get("files")
    if path.name == SECTION and files is not None:  # as seen from where it lies
        section["files"] = _beside(path.parent, files)
    return section


def _beside(folder: Path, files: Any) -> Any:
    if isinstance(files, Mapping):
        return {split: _beside(folder, some) for split, some in files.items()}
    if isinstance(files, list):
        return [_beside(folder, one) for one in files]
    absolute = "://" in files or Path(files).is_absolute()
    return files if absolute else str(folder.absolute() / files)


def _tfds(path: Path) -> dict[str, Any]:
    return {"name": "tfds", "folder": str(path.parent), "split": "train"}

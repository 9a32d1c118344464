"""Standard evaluation suites: other people's test sets, judged by their protocol, for any run.

A suite is a file like an experiment, whose `get_config(path)` returns a ConfigDict with a `source`,
`splits` of it and `evaluators`, and nothing else. Its records give `image` as encoded bytes and
`text` as a string or a list of them, and go through the run's own transforms, so that pictures get
the size, and captions the cleaning and the tokens, that the model was trained with. Its figures are
called `eval/<suite>-<split>/<task>/<metric>`.
"""

import dataclasses
import glob
import importlib.util
import inspect
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines import names
from data_pipelines import open_source as sources
from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.files import is_remote
from data_pipelines.fits import short
from data_pipelines.own_code import own_code
from data_pipelines.pipeline import Pipeline, Source, first_usable
from data_pipelines.transforms import text
from mmcl import config as configs
from mmcl import experiment
from mmcl.experiment import Section
from mmcl.model import Model


@dataclasses.dataclass(frozen=True)
class Suite:
    """What a suite's file says, checked.

    Attributes:
        name: that of its file.
    """

    name: str
    source: Section
    splits: list[str]
    evaluators: list[Section]


@dataclasses.dataclass(frozen=True)
class Opened:
    """A suite whose data is there.

    Attributes:
        record: the first that can be read.
        label_names: those of its source.
    """

    suite: Suite
    record: Mapping[str, Any]
    label_names: dict[str, list[str]]


def open_all(listed: Sequence[str]) -> list[Opened]:
    """The suites `NAME[:PATH]`, every split of their data opened once.

    Raises:
        InputError: a suite is none, its data is not there, or two would have one name.
    """
    loaded = [load(named) for named in listed]
    for name, times in Counter(suite.name for suite in loaded).items():
        splits = [split for suite in loaded if suite.name == name for split in suite.splits]
        if times > 1 and len(set(splits)) < len(splits):
            raise InputError(
                f"Two suites would give figures called eval/{name}-{splits[0]}: evaluate them one "
                "by one, or copy the suite's file under another name."
            )
    return [_opened(suite) for suite in loaded]


def load(named: str) -> Suite:
    """The suite `NAME[:PATH]`: one that mmcl brings along, or the user's own file.

    Raises:
        InputError: there is no such suite or path, or an unknown, missing or misused key.
    """
    path, data = configs.split(named)
    file = suite_file(path)
    where = f"{file.name}: config"
    config = _config(file, path, data)
    names.known(config, ("source", "splits", "evaluators"), where)
    suite: Suite = names.call(Suite, config, where, name=file.stem)
    if not suite.splits:
        raise InputError(f"{where}.splits: there is none.")
    for split in suite.splits:
        found = sources.find_source({**suite.source, "split": split}, f"{where}.source")
        sources.check_split(found, split, f"{where}.splits: ")
    experiment.find_evaluators(suite.evaluators, f"{where}.evaluators")
    return suite


def of(opened: Opened, model: Model) -> Model:
    """The model that embeds the splits of a suite and judges them by its evaluators.

    Raises:
        InputError: the model's transforms cannot take the suite's records.
    """
    suite = opened.suite
    evaluation = dataclasses.replace(
        model.settings.eval, splits=suite.splits, evaluators=suite.evaluators, suites=[]
    )
    return dataclasses.replace(
        model,
        settings=dataclasses.replace(model.settings, source=suite.source, eval=evaluation),
        pipeline=pipeline(opened, model.pipeline),
        suite=suite.name,
        modalities=modalities(opened, model.pipeline),
    )


def modalities(opened: Opened, read: Pipeline) -> list[str]:
    """Those that the model reads and the suite's records have.

    Raises:
        InputError: there are none.
    """
    found = [name for name in read.transforms if opened.record.get(name) is not None]
    if not found:
        raise InputError(
            f"The records of the suite '{opened.suite.name}' have {list(opened.record)}, and the "
            f"model reads {list(read.transforms)}: call them alike in a suite of your own."
        )
    return found


def pipeline(opened: Opened, read: Pipeline) -> Pipeline:
    """The same transforms for the suite's records, whose labels are others.

    Raises:
        InputError: they cannot take them.
    """
    assert read.source is not None
    transforms = dict(read.transforms)
    for modality in modalities(opened, read):
        value = opened.record[modality]
        if isinstance(value, list) and (_refusal(read, modality, value) is not None):
            transforms[modality] = (text.choose, *transforms[modality])  # they take one caption
    source = _Alike(read.source, opened.label_names)
    made = dataclasses.replace(read, source=source, transforms=transforms)
    for modality in modalities(opened, read):
        value = opened.record[modality]
        if (error := _refusal(made, modality, value)) is not None:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"config.transforms.{modality} cannot take what the suite '{opened.suite.name}' "
                f"gives, a {type(value).__name__} ({reason}): pictures are files, for image.decode,"
                " a crop or image.resize to begin with; captions are strings."
            ) from error
    return made


def _refusal(pipeline: Pipeline, modality: str, value: Any) -> Exception | None:
    """What the transforms raise for a value that they were not made for."""
    try:
        pipeline.apply(modality, value, seed=(0,), train=False)
    except (Fault, InputError):  # of this record, and told when it is embedded
        pass
    except Exception as error:  # there is no error that all others are of
        return error
    return None


class _Alike:
    """The records of training, which say how each modality looks, with the labels of a suite."""

    def __init__(self, source: Source, label_names: dict[str, list[str]]):
        self._source, self.label_names = source, label_names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[index]


def suite_file(path: str) -> Path:
    """The file that the user means: his own, else the one of that name that mmcl brings along.

    Raises:
        InputError: there is no such suite.
    """
    given = Path(path)
    if given.is_file() and given.suffix == ".py":
        return given.resolve()
    brought = {file.stem: file for file in brought_along()}
    inside = given.parent.as_posix() in (".", "suites", "experiments/suites")
    if inside and given.suffix in ("", ".py") and given.stem in brought:
        return brought[given.stem]
    raise InputError(f"There is no suite '{path}'.{names.nearest(given.stem, brought)}")


def brought_along() -> list[Path]:
    """The suites that come with mmcl."""
    folders = {file.parent / "suites" for file in configs.brought_along()}
    return sorted(file for folder in folders for file in folder.glob("*.py"))


def _config(file: Path, path: str, data: str | None) -> dict[str, Any]:
    """What `get_config` of a suite returns, as plain data."""
    if file not in brought_along():
        configs.importable(file)
    with own_code("The suite fails"):
        spec = importlib.util.spec_from_file_location(f"mmcl_suite_{file.stem}", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path} has no function get_config(path); every suite needs it.")
    if data is None and _needs_path(module.get_config):
        raise InputError(f"The suite '{path}' needs the path of its data: {path}:PATH.")
    if data is not None and not _may_be_there(data):
        raise InputError(f"There is no {data}, where the suite '{path}' looks for its data.")
    with own_code(f"get_config of {file} fails"):
        made = module.get_config(*([] if data is None else [data]))
        config = configs.plain(made)
    if not isinstance(config, dict):
        raise InputError(
            f"get_config of {path} returns {short(made)}; it must return a ml_collections "
            "ConfigDict."
        )
    return config


def _needs_path(get_config: Any) -> bool:
    parameters = inspect.signature(get_config).parameters.values()
    return any(one.default is one.empty for one in parameters)


def _may_be_there(path: str) -> bool:
    """Whether a plain local path exists; of others that is found out when they are opened."""
    plain = not is_remote(path) and not glob.has_magic(path) and "{" not in path
    return not plain or os.path.exists(os.path.expanduser(path))


def _opened(suite: Suite) -> Opened:
    first: Source | None = None
    for split in suite.splits:
        try:
            source = sources.open_source({**suite.source, "split": split})
            record = first_usable(source, lambda record, _: record)
        except InputError as error:
            raise InputError(f"Suite '{suite.name}', split '{split}': {error}") from error
        if first is None:
            first, found = source, record
    assert first is not None
    return Opened(suite, found, first.label_names)

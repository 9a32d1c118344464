"""From a config to the parts of an experiment: a section names a module and gives its options."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from data_pipelines import fits, names, transform_list
from data_pipelines import open_source as sources
from data_pipelines.errors import InputError
from data_pipelines.loader import Source
from data_pipelines.pipeline import Pipeline, first_usable
from mmcl import config as configs
from mmcl import optimizers
from mmcl.evals.figure import Figures
from mmcl.guard import Guard
from mmcl.mesh import Axes
from mmcl.mixing.moment import Mixing
from mmcl.models.towers import Towers
from mmcl.objectives.term import Objective
from mmcl.teacher import NAME as TEACHER
from mmcl.teacher import Teacher
from mmcl.wandb_log import Wandb

Section = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The keys of `config.eval`.

    Attributes:
        splits: splits of the source that are evaluated.
        suites: standard suites that are evaluated beside them, `NAME:PATH` each, see `mmcl.suites`.
        evaluators: sections that name modules of `mmcl.evals`.
        every: steps between evaluations during training; None: only at the end.
        batch_size: records encoded at once.
        prefixes: numbers of leading dimensions of the embeddings, each judged by itself as well.
    """

    splits: list[str] = dataclasses.field(default_factory=list)
    evaluators: list[Section] = dataclasses.field(default_factory=lambda: [{"name": "retrieval"}])
    every: int | None = None
    batch_size: int = 256
    suites: list[str] = dataclasses.field(default_factory=list)
    prefixes: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Saving:
    """The keys of `config.checkpoint`.

    Attributes:
        every: steps between saves; None: only at the end.
        keep: how many newest are kept.
        keep_every: those of steps that this divides are kept for good; None: of none.
        best: a metric of an evaluation as metrics.jsonl names it; the checkpoint with its largest
            value is kept, of `-METRIC` that with the smallest. An evaluation that finds better than
            all before is saved.
    """

    every: int | None = None
    keep: int = 2
    keep_every: int | None = None
    best: str | None = None


@dataclasses.dataclass(frozen=True)
class Faults:
    """The keys of `config.faults`.

    Attributes:
        share: the largest share of records that may be rejected, of those that a run has used (or
            of 500, where it has used fewer) and of an evaluated split; beyond it the run stops.
        record_bytes: the largest record, as the source gives it, that is used; None: any.
    """

    share: float = 0.01
    record_bytes: int | None = 2**26


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keys of a config, or of one stage of it.

    Attributes:
        steps: optimiser steps.
        batch_size: global batch, over all processes and devices.
        embed_dim: width of the shared space.
        source: section naming a module of `data_pipelines.sources`; `split` is what is trained on.
        transforms: modality -> list of sections naming functions of `data_pipelines.transforms`.
        towers: modality -> section naming a module of `mmcl.models`; modalities without one are for
            the objective to read.
        objective: section naming a module of `mmcl.objectives`.
        optimizer, schedule: sections naming functions of `mmcl.optimizers`, `mmcl.schedules`.
        micro_batches: parts of a batch that the towers encode one after the other, which takes the
            memory of one part and the time of one more forward pass; the loss is that of the whole.
        seed: of the initial parameters, the order of the data and its augmentation.
        precision: what the towers compute in; parameters stay float32.
        ema: decay of the averaged parameters that are then evaluated; None for no average.
        teacher: the model that the objective hears of beside the one that learns; None: none.
        log_every: steps between rows of metrics.jsonl.
        threads: that load data, in each process that does.
        workers: processes that load data; 0: the training process does.
        faults: what is done about records that cannot be used.
        guard: what is done about steps whose loss is no good.
        mesh: how many devices along each axis; the same in all stages.
        sharding: rules of `mmcl.sharding`, before its own: [regex, [axis or None, ...]] each.
        mixing: section naming a module of `mmcl.mixing` that changes the weights of a mixture on
            the way, and `every`, the steps between; None: they stay.
        wandb: the run at Weights & Biases that is told every row; None: none is.
        next_steps: what the report suggests to do next: [title, command, why] each.
    """

    steps: int
    batch_size: int
    embed_dim: int
    source: Section
    transforms: dict[str, list[Section]]
    towers: dict[str, Section]
    objective: Section
    optimizer: Section
    schedule: Section
    micro_batches: int = 1
    seed: int = 0
    precision: str = "float32"
    ema: float | None = None
    teacher: Teacher | None = None
    eval: Evaluation = Evaluation()
    checkpoint: Saving = Saving()
    log_every: int = 10
    threads: int = 2
    workers: int = 0
    faults: Faults = Faults()
    guard: Guard = Guard()
    mesh: Axes = Axes()
    sharding: list[Any] = dataclasses.field(default_factory=list)
    mixing: Section | None = None
    wandb: Wandb | None = None
    next_steps: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of training with one data, objective and optimiser.

    Attributes:
        start, stop: the steps it covers, counted over the whole run.
        carry: what it takes over from the stage before beside the towers' parameters and their
            average: any of "optimizer", "objective", "teacher".
    """

    number: int
    start: int
    stop: int
    carry: list[str]
    settings: Settings


_KEYS = [field.name for field in dataclasses.fields(Settings)]
_COUNTS = ("steps", "batch_size", "micro_batches", "embed_dim", "log_every", "threads")
_TAKEN = ("id", "index", "present", "rejected", "source", "objective")  # by batch and parameters


def stages(config: dict[str, Any]) -> list[Stage]:
    """The stages of a config: `config.stages` lists changes to the rest, each with its `steps`.

    A key that a stage changes is merged into the section of that name; a section with another
    `name` replaces it. A config without stages is one stage.

    Raises:
        InputError: an unknown, missing or misused key, with the nearest name.
    """
    names.known(config, [*_KEYS, "stages"], "config")
    base = {key: value for key, value in config.items() if key != "stages"}
    listed = config.get("stages") or []
    fits.check(listed, list[Section], "config.stages")
    made: list[Stage] = []
    for number, changes in enumerate(listed or [{}]):
        names.known(changes, [*_KEYS, "carry"], f"config.stages.{number}")
        start = made[-1].stop if made else 0
        try:
            current = settings(_merge(base, {k: v for k, v in changes.items() if k != "carry"}))
            carry = changes.get("carry", ["optimizer", "objective"])
            fits.check(carry, list[Literal["optimizer", "objective", "teacher"]], "carry")
        except InputError as error:
            raise InputError(f"Stage {number}: {error}" if listed else str(error)) from error
        if not made and current.teacher is not None and current.teacher.ema is None:
            raise InputError(
                "config.teacher: before the first stage the towers know nothing; give it an ema, "
                "or set it in a later stage of config.stages."
            )
        if made and current.mesh != made[0].settings.mesh:
            raise InputError(
                f"config.stages.{number}.mesh: all stages have the same; set config.mesh."
            )
        made.append(Stage(number, start, start + current.steps, carry, current))
    return made


def _check_best(made: Settings) -> None:
    """What is best is judged by a split that is evaluated; only it can say what metrics it has."""
    best = (made.checkpoint.best or "").removeprefix("-")
    judged = [f"eval/{split}/" for split in made.eval.splits]
    judged += [f"eval/{configs.name(suite.partition(':')[0])}-" for suite in made.eval.suites]
    if best and not best.startswith(tuple(judged)):
        named = (
            f"one of {', '.join(judged)}" if judged else "a split, and config.eval.splits is empty"
        )
        raise InputError(
            f"config.checkpoint.best: '{best}' should be a metric of {named}"
            " (-METRIC where lower is better)."
        )


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    if "name" in new and new["name"] != old.get("name"):
        return new
    return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}


def settings(config: dict[str, Any]) -> Settings:
    """The checked top level of a config; everything that can be checked without data is."""
    parts = {
        "eval": Evaluation,
        "checkpoint": Saving,
        "faults": Faults,
        "guard": Guard,
        "mesh": Axes,
    }
    optional = {"teacher": Teacher, "wandb": Wandb}
    parts |= {key: part for key, part in optional.items() if config.get(key) is not None}
    for key, part in parts.items():
        section, where = config.get(key, {}), f"config.{key}"
        fits.check(section, Section, where)
        config = {**config, key: names.call(part, section, where)}
    made: Settings = names.call(Settings, config, "config")
    counts = {
        **{key: getattr(made, key) for key in _COUNTS},
        "eval.every": made.eval.every,
        "eval.batch_size": made.eval.batch_size,
        **{f"eval.prefixes.{i}": prefix for i, prefix in enumerate(made.eval.prefixes)},
        "checkpoint.every": made.checkpoint.every,
        "checkpoint.keep": made.checkpoint.keep,
        "checkpoint.keep_every": made.checkpoint.keep_every,
        "faults.record_bytes": made.faults.record_bytes,
        "guard.limit": made.guard.limit,
    }
    for key, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"config.{key}: {count} should be 1 or more.")
    for key, least in (("seed", made.seed), ("workers", made.workers)):
        if least < 0:
            raise InputError(f"config.{key}: {least} should be 0 or more.")
    if not 0 <= made.faults.share <= 1:
        raise InputError(f"config.faults.share: {made.faults.share} should be from 0 to 1.")
    _check_best(made)
    decays = {"ema": made.ema, "teacher.ema": made.teacher.ema if made.teacher else None}
    for key, decay in decays.items():
        if decay is not None and not 0 <= decay < 1:
            raise InputError(
                f"config.{key}: {decay} should be at least 0 and less than 1, or None."
            )
    if made.teacher is not None and TEACHER in made.transforms:
        raise InputError(
            "config.teacher: the data have a 'teacher', too; leave one out, or rename "
            "config.transforms.teacher."
        )
    for i, prefix in enumerate(made.eval.prefixes):
        if prefix > made.embed_dim:
            raise InputError(
                f"config.eval.prefixes.{i}: {prefix} is more than config.embed_dim="
                f"{made.embed_dim}."
            )
    if not set(made.towers) <= set(made.transforms):
        raise InputError(
            f"config: there are towers for {sorted(made.towers)} but transforms for "
            f"{sorted(made.transforms)}; each tower needs transforms."
        )
    for key, section in (("towers", made.towers), ("transforms", made.transforms)):
        for modality in section:
            if modality in _TAKEN:
                raise InputError(
                    f"config.{key}: no modality can be called '{modality}'; rename it."
                )
    build_towers(made)
    build_objective(made)
    optimizers.find(_name(made.optimizer, "config.optimizer"), made.optimizer)
    build_schedule(made)
    build_evaluators(made)
    build_mixing(made)
    found = find_source(made)
    sources.check_split(found, made.source.get("split"), "config.source.split: ")
    for i, split in enumerate(made.eval.splits):
        sources.check_split(found, split, f"config.eval.splits.{i}: ")
    for modality, sections in made.transforms.items():
        for i, section in enumerate(sections):
            transform_list.find(section, f"config.transforms.{modality}.{i}")
    return made


def build_towers(settings: Settings) -> Towers:
    """The flax modules of all modalities."""
    modules = {}
    for modality, section in settings.towers.items():
        where = f"config.towers.{modality}"
        tower = names.find("mmcl.models", _name(section, where), f"{where}.name", face="Tower")
        made = names.call(tower, section, where, embed_dim=settings.embed_dim)
        modules[modality] = _hashable(made)
    known = ("float32", "bfloat16", "float16", "float64")
    if settings.precision not in known:
        near = names.nearest(settings.precision, known)
        raise InputError(f"config.precision: no '{settings.precision}'.{near}")
    return Towers(modules, jnp.dtype(settings.precision))


def _hashable(module: nn.Module) -> nn.Module:
    """With tuples for lists, so that jax can tell by its attributes what is compiled already."""
    lists: dict[str, Any] = {
        field.name: tuple(value)
        for field in dataclasses.fields(module)
        if isinstance(value := getattr(module, field.name, None), list)
    }
    return module.clone(**lists) if lists else module


def build_objective(settings: Settings) -> Objective:
    """The objective, its options checked."""
    section, where = settings.objective, "config.objective"
    name = _name(section, where)
    found = names.find("mmcl.objectives", name, f"{where}.name", face="Objective")
    made = names.call(found, section, where, embed_dim=settings.embed_dim)
    for pair in getattr(made, "pairs", ()):
        for modality in pair:
            if modality not in settings.towers:
                raise InputError(
                    f"{where}.pairs: there is no tower for '{modality}'."
                    f"{names.nearest(modality, settings.towers)}"
                )
    return made


def build_schedule(settings: Settings) -> Callable[[Any], Any]:
    """Step in the stage -> learning rate."""
    section, where = settings.schedule, "config.schedule"
    name = _name(section, where)
    schedule = names.find("mmcl.schedules", name, f"{where}.name", takes="steps")
    return names.call(schedule, section, where, steps=settings.steps)


def build_evaluators(settings: Settings) -> list[Callable[..., Figures]]:
    """`f(embedded, model) -> figures` for each section of `config.eval.evaluators`."""
    return find_evaluators(settings.eval.evaluators, "config.eval.evaluators")


def find_evaluators(sections: list[Section], where_all: str) -> list[Callable[..., Figures]]:
    """The same of any sections; `where_all` is the config key that holds them."""
    made: list[Callable[..., Figures]] = []
    for i, section in enumerate(sections):
        where = f"{where_all}.{i}"
        evaluate = names.find("mmcl.evals", _name(section, where), f"{where}.name", face="evaluate")
        names.check(evaluate, section, where, given=("embedded", "model"))
        options = {key: value for key, value in section.items() if key != "name"}
        made.append(functools.partial(evaluate, **options))
    return made


def build_mixing(settings: Settings) -> Mixing | None:
    """The rule by which a mixture's weights change, and how often; None where they stay."""
    section, where = settings.mixing, "config.mixing"
    if section is None:
        return None
    reweigh = names.find("mmcl.mixing", _name(section, where), f"{where}.name", face="reweigh")
    every = {"every": names.parameters(Mixing)["every"]}
    names.check(reweigh, section, where, given=("moment", "state"), also=every)
    if section["every"] < 1:
        raise InputError(f"{where}.every: {section['every']} should be 1 or more.")
    options = {key: value for key, value in section.items() if key not in ("name", "every")}
    return Mixing(section["every"], functools.partial(reweigh, **options))


def find_source(settings: Settings) -> type:
    """The class of the source, its options checked."""
    return sources.find_source(settings.source, "config.source")


def open_source(settings: Settings, split: str | None = None) -> Source:
    """The source of training, or another split of it (which may prepare its data first).

    Raises:
        InputError: there is no such split, no record in it, or no such label in what is trained on.
    """
    section = settings.source
    trained_on = split in (None, section.get("split"))
    if split is not None:
        section = {**section, "split": split}
        sources.check_split(sources.find_source(section, "config.source"), split)
    source = sources.open_source(section, "config.source")
    if not len(source):
        raise InputError(f"config.source: there are no records in '{section.get('split')}'.")
    record = first_usable(source, lambda record, _: record)
    if not trained_on:
        return source
    label = getattr(build_objective(settings), "positives", None)
    if label not in (None, "index") and label not in record:  # every batch has an index
        near = names.nearest(label, source.label_names)
        raise InputError(f"config.objective.positives: the records have no '{label}'.{near}")
    return source


def build_pipeline(settings: Settings, source: Source) -> Pipeline:
    """The transforms of every modality; those that ask for `folder` get the source's."""
    folder = getattr(source, "folder", None)
    made = {
        modality: transform_list.build(sections, f"config.transforms.{modality}", folder)
        for modality, sections in settings.transforms.items()
    }
    return Pipeline(made, source, settings.faults.record_bytes)


def _name(section: Any, where: str) -> str:
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise InputError(f"{where}: {fits.short(section)} should be a section with a 'name'.")
    return section["name"]

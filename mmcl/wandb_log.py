"""The rows of metrics.jsonl as a run at Weights & Biases, for those who have `wandb` installed."""

import dataclasses
import importlib
import importlib.util
import json
import uuid
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError


@dataclasses.dataclass(frozen=True)
class Wandb:
    """The keys of `config.wandb`, as `wandb.init` has them.

    Attributes:
        project: where the run is listed.
        name: of the run there; None: W&B makes one up.
        entity: the user or team; None: the user's own.
        group: of runs that belong together.
        tags: to find it by.
    """

    project: str
    name: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


def check_installed(wandb: Wandb | None) -> None:
    """That what the config asks for can be had.

    Raises:
        InputError: the package is missing.
    """
    if wandb is not None and importlib.util.find_spec("wandb") is None:
        raise InputError(
            "config.wandb: the package wandb is missing; pip install 'mmcl[wandb]', or leave "
            "config.wandb out."
        )


class WandbLog:
    """A run at W&B, gone on with by every process that trains in this workdir.

    wandb.json in the workdir holds its id and the last step that it was told: what a resumed run
    repeats, to the bit, is not told twice.

    Raises:
        InputError: W&B refuses, or nobody is logged in; or wandb.json is damaged.
    """

    def __init__(self, workdir: Path, options: Wandb, config: dict[str, Any]):
        wandb = importlib.import_module("wandb")
        self._path = workdir / "wandb.json"
        self._id, self._told = _kept(self._path)
        try:
            self._run = wandb.init(
                **dataclasses.asdict(options),
                id=self._id,
                resume="allow",
                dir=str(workdir),
                config=config,
                settings=wandb.Settings(console="off"),
            )
        except wandb.errors.Error as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"config.wandb: {first.rstrip('.')}. `wandb login` logs in; WANDB_MODE=offline "
                "keeps the run here."
            ) from error
        self._remember()

    def write(self, row: dict[str, Any]) -> None:
        """`row` has `step` and what else JSON can hold."""
        if row["step"] <= self._told:
            return
        self._told = row["step"]
        self._remember()
        self._run.log({name: x for name, x in row.items() if name != "step"}, step=row["step"])

    def close(self) -> None:
        self._run.finish()

    def _remember(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"id": self._id, "step": self._told}))
        temporary.replace(self._path)


def _kept(path: Path) -> tuple[str, int]:
    """The run's id and the last step that it was told; of a new run where there is no file."""
    if not path.is_file():
        return uuid.uuid4().hex[:12], 0
    try:
        kept = json.loads(path.read_text())
        return str(kept["id"]), int(kept["step"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise InputError(f"{path} is damaged; delete it, and W&B gets another run.") from None

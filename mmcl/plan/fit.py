"""The largest batch that fits; the cheapest way in which a batch does."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from data_pipelines import names
from data_pipelines.errors import InputError
from mmcl import experiment
from mmcl.experiment import Stage
from mmcl.plan.plan import Plan, plan
from mmcl.plan.topology import Topology

REMAT = ("none", "dots", "full")  # ever more is computed again
Note = Callable[[str], None]


def batch_that_fits(stage: Stage, on: Topology, note: Note) -> Plan:
    """The plan with the largest batch that fits, to within an eighth.

    It is doubled, or halved, from that of the config; then what lies between is cut in eight.

    Raises:
        InputError: not even one example a device fits.
    """

    def tried(size: int) -> Plan:
        settings = dataclasses.replace(stage.settings, batch_size=size)
        made = plan(dataclasses.replace(stage, settings=settings), on, quick=True)
        note(f"batch {size:,}: {_told(made)}")
        return made

    least, size = len(on.devices), stage.settings.batch_size
    found = tried(size)
    while not found.fits:
        if size == least:
            raise InputError(
                "Not even one example a device fits; `--fit mesh` looks for another mesh."
            )
        size = max(size // 2 // least * least, least)
        found = tried(size)
    if found.batch_size == stage.settings.batch_size:
        while (larger := tried(2 * found.batch_size)).fits:
            found = larger
    step = max(found.batch_size // 8 // least * least, least)
    low, high = found.batch_size, 2 * found.batch_size
    while high - low > step:
        middle = (low + high) // 2 // least * least
        between = tried(middle)
        if between.fits:
            found, low = between, middle
        else:
            high = middle
    return found


def mesh_that_fits(config: dict[str, Any], number: int, on: Topology, note: Note) -> Plan:
    """The plan of the cheapest way in which the config's batch fits: of those that compute least
    again, that which shares parameters out over the fewest devices, by powers of two.

    Raises:
        InputError: none does.
    """

    def tried(remat: str, fsdp: int) -> Plan:
        changed = copy.deepcopy(config)
        words = [f"--config.mesh.fsdp={fsdp}"]
        changed["mesh"] = {"slice": slices, "data": -1, "fsdp": fsdp}
        for tower in towers:
            words.append(f"--config.towers.{tower}.remat={remat}")
            changed["towers"][tower]["remat"] = remat
        made = plan(experiment.stages(changed)[number], on, quick=True)
        note(f"{' '.join(words)}: {_told(made)}")
        return made

    towers = [name for name, section in config["towers"].items() if _has_remat(name, section)]
    slices = config.get("mesh", {}).get("slice", 1)
    most = (len(on.devices) // slices).bit_length() - 1
    for remat in REMAT if towers else ("",):
        found = tried(remat, 2**most)
        if not found.fits:
            continue
        low, high = -1, most  # 2^high devices are enough, 2^low are not
        while high - low > 1:
            middle = (low + high) // 2
            made = tried(remat, 2**middle)
            if made.fits:
                found, high = made, middle
            else:
                low = middle
        return found
    raise InputError("No mesh of these devices holds this batch; `--fit batch` finds the largest.")


def _has_remat(modality: str, section: dict[str, Any]) -> bool:
    where = f"config.towers.{modality}.name"
    return "remat" in names.parameters(
        names.find("mmcl.models", section["name"], where, face="Tower")
    )


def _told(made: Plan) -> str:
    """One line, in GiB."""
    gib = 1 << 30
    fits = "fits" if made.fits else "does not fit"
    return f"{fits}, {made.peak_bytes / gib:.2f} of {made.hbm_bytes / gib:.2f} GiB"

"""What the source stores of the records of an embedded split, before any transform."""

from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.pipeline import read
from data_pipelines.scan import only
from mmcl import experiment
from mmcl.evals.batches import used_records
from mmcl.evals.embedded import Embedded
from mmcl.model import Model


def raw_values(embedded: Embedded, model: Model, entry: str) -> list[Any]:
    """One entry of each record that was embedded, in order; None where a record has none.

    Raises:
      InputError: a record can no longer be read, or has changed since it was embedded.
    """
    source = only(experiment.open_source(model.settings, embedded.split), entry)
    found = []
    for index, id in zip(used_records(embedded, source).tolist(), embedded.ids):
        try:
            record = read(source, index)
        except Fault as fault:
            raise InputError(f"'{id}' can no longer be read: {fault}") from fault
        if record["id"] != id:
            raise InputError(f"record {index} was '{id}' when embedded, and is '{record['id']}'")
        found.append(record.get(entry))
    return found

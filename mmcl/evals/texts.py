"""The texts of an embedded split, to be changed and encoded again."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.pipeline import Pipeline
from mmcl.evals.embed import encode_values
from mmcl.evals.embedded import Embedded
from mmcl.evals.pairs import check_unit
from mmcl.evals.raw_values import raw_values
from mmcl.model import Model


@dataclasses.dataclass(frozen=True)
class Texts:
    """One string a record, as soon as its transforms make it one: of several captions it is chosen,
    but neither cleaned nor tokenised.

    Attributes:
        read: the model's pipeline from there on.
    """

    modality: str
    text_N: list[str]
    read: Pipeline
    model: Model

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Strings in their place -> z, unit rows."""
        model = self.model
        z = encode_values(model.encode_batch, self.read, self.modality, texts, model.batch_size)
        return check_unit(z, self.modality)


def texts(embedded: Embedded, model: Model, modality: str, record_N: np.ndarray) -> Texts:
    """Those of some records.

    Raises:
        InputError: a record has no value, or it becomes no string.
    """
    values = raw_values(embedded, model, modality)
    values = [values[record] for record in record_N]
    transforms = list(model.pipeline.transforms[modality])
    while not all(isinstance(value, str) for value in values):
        if None in values or not transforms:
            raise InputError(f"'{modality}' of '{embedded.split}' is no text of every record")
        transform, rng = transforms.pop(0), np.random.default_rng(0)  # which evaluation draws not
        values = [transform(value, rng=rng, train=False) for value in values]
    read = dataclasses.replace(model.pipeline, transforms={modality: transforms})
    return Texts(modality, values, read, model)

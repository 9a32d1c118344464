"""A data set that TensorFlow Datasets prepared in a format with random access; TensorFlow itself is
neither needed nor imported.

Prepare one with `download_and_prepare(file_format="array_record")`, which does need TensorFlow.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.faults import Fault
from data_pipelines.fields import Fields
from data_pipelines.files import LARGEST, copied, folder_of, is_remote, listed, not_too_large
from data_pipelines.shards import Shards


class Source:
    """Records of a prepared data set: `source[i]` is read when it is asked for. Threads and pickles
    may share it.

    An image stays encoded, as bytes; a text is a string; what the features call a tensor is an
    array, a scalar a number.

    Args:
        folder: that of one version, with dataset_info.json in it; a remote one is copied into the
            cache, as far as the split needs it.
        split: such as `train`, `train[:50%]` or `train+validation`.
        fields: entry of a record -> feature, `captions.text` looking into one. None: every feature
            under its own name.
        id: the feature that is the stable identity. None: `id` if there is one, else the name of
            the file and the row, which are the same whatever part of a split is read.
        label_names: label -> names; those that the features tell need not be said.
        limit: keep the first so many records.
        largest: bytes of the largest record that is taken.
        cache: where remote files are copied to; None: $MMCL_CACHE or ~/.cache/mmcl.

    Raises:
        InputError: there is no such data set or split, or its format has no random access.
    """

    def __init__(
        self,
        *,
        folder: str,
        split: str,
        fields: Mapping[str, str] | None = None,
        id: str | None = None,
        label_names: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        largest: int = LARGEST,
        cache: str | os.PathLike | None = None,
    ):
        import tensorflow_datasets as tfds  # takes half a second

        remote = is_remote(folder)
        if remote:
            [folder] = listed(folder)
        local = _described(folder, cache) if remote else os.path.expanduser(folder)
        try:
            builder = tfds.builder_from_directory(local)
            self._parts = builder.info.splits[split].file_instructions
            if remote:
                copied([f"{folder}/{os.path.basename(of.filename)}" for of in self._parts], cache)
            self._features = builder.info.features
            self._data = builder.as_data_source(split, file_format="array_record").data_source
        except InputError:
            raise
        except Exception as error:  # there are many, of several packages
            reason = " ".join(str(error).split())
            raise InputError(f"tfds, {folder}, split '{split}': {reason}") from error
        names = [part.filename for part in self._parts]
        self._shards = Shards(names, [part.take for part in self._parts], limit)
        self._encoded = {
            name: tfds.decode.SkipDecoding()
            for name, feature in self._features.items()
            if isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8
        }
        if id is None and "id" in self._features:
            id = "id"
        if fields is None:
            fields = {name: name for name in self._features if name != "id"}
        told = {
            entry: self._features[field].names
            for entry, field in fields.items()
            if field in self._features
            and isinstance(self._features[field], tfds.features.ClassLabel)
        }
        self.label_names = {k: list(v) for k, v in {**told, **(label_names or {})}.items()}
        self._fields = Fields(fields, id, self.label_names)
        self._fields.heads(self._features)
        self._largest = largest

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record.

        Raises:
            Fault: `bad_record`, `too_large`, `missing_field`.
        """
        file, row = self._shards(index)
        id = self._shards.name(file, row + self._parts[file].skip)
        try:
            packed = not_too_large(self._data[int(index)], self._largest, id)
            found = self._features.deserialize_example_np(packed, decoders=self._encoded)
            raw = {name: _plain(value, name in self._encoded) for name, value in found.items()}
        except Fault:
            raise
        except Exception as error:  # of ArrayRecord, protobuf, NumPy or Pillow
            raise Fault("bad_record", f"{id}: {' '.join(str(error).split())}") from error
        return self._fields.record(raw, id)

    def only(self, *entries: str) -> "Source":
        """The same records with these entries alone."""
        view = copy.copy(self)
        view._fields = self._fields.only(*entries)
        return view


def _described(folder: str, cache: str | os.PathLike | None) -> str:
    """The local folder of a copy of what is said about a remote data set."""
    said = [name for name in listed(f"{folder}/*") if name.endswith((".json", ".txt"))]
    if not said:
        raise InputError(f"{folder} has no dataset_info.json: name the folder of one version")
    return folder_of(copied(said, cache)[0])


def _plain(value: Any, encoded: bool = False) -> Any:
    """Bytes that are UTF-8 as strings, unless they are an encoded picture; scalars as numbers;
    lists of arrays of one shape as arrays.
    """
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        try:
            return value if encoded else value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object):
        items = [_plain(item) for item in value]
        shapes = {np.shape(item) for item in items}
        arrays = isinstance(value, list) and all(not isinstance(o, str | bytes) for o in items)
        return np.array(items) if arrays and len(shapes) == 1 else items
    if isinstance(value, np.generic):
        return value.item()
    return value

"""Records on disk: one msgpack map a record in an ArrayRecord file, read by position."""

from collections.abc import Iterable
from pathlib import Path

import msgpack
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter


def write(path: Path, records: Iterable[dict]) -> None:
    """Writes records of str, bytes, numbers, lists and dicts; the same records, the same bytes.

    Raises:
      OSError: the disk does not take them.
    """
    try:
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(msgpack.packb(record))
        writer.close()
    except RuntimeError as error:  # what the library raises for any failure of a file
        raise OSError(str(error)) from error


class Records:
    """The records of one file by position. Threads may share it; a pickle reopens the file."""

    def __init__(self, path: Path):
        self._packed = ArrayRecordDataSource(str(path))

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return msgpack.unpackb(self._packed[index])

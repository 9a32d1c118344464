"""The user's own code: an experiment file, a module that a config names."""

import contextlib
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.errors import InputError

_OURS = [Path(__file__).parents[1] / name for name in ("mmcl", "data_pipelines", "pallas_kernels")]
_NOT_THEIRS = [*_OURS, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))]


@contextlib.contextmanager
def own_code(doing: str) -> Iterator[None]:
    """What the user's code raises becomes one line: `doing`, file, line, error.

    Raises:
        InputError: in the place of any other exception, which is its cause.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {_message(error)}".split())
        raise InputError(f"{doing}: {_place(error)}{what}") from error


def _message(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def _place(error: Exception) -> str:
    """`file, line n: ` of the last line of the user's own that led to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and not any(file.is_relative_to(folder) for folder in _NOT_THEIRS):
            return f"{file}, line {frame.lineno}: "
    return ""

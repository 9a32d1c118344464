"""Libraries that only some data needs, imported when it is there."""

import importlib
from types import ModuleType

from data_pipelines.errors import InputError


def load(module: str, extra: str) -> ModuleType:
    """The module, which `pip install 'mmcl[extra]'` brings.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"this needs {module}: run pip install 'mmcl[{extra}]'") from error

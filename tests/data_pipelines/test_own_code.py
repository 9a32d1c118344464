"""An error in the user's own code is one line that says where."""

import importlib.util
from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from data_pipelines.own_code import own_code


def run(file: Path, text: str) -> None:
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize(
    "text, line, what",
    [
        ("x = 1\ny = x +\n", 2, "SyntaxError: invalid syntax"),
        ("x = 1\n\n\nx / 0\n", 4, "ZeroDivisionError: division by zero"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: Expecting property name"),
        ("\nimport no_such_package\n", 2, "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise ValueError('two\\n  lines')\n", 1, "ValueError: two lines"),
    ],
)
def test_file_line_and_error(tmp_path: Path, text: str, line: int, what: str) -> None:
    file = tmp_path / "mine.py"
    with pytest.raises(InputError) as caught, own_code("It fails"):
        run(file, text)
    assert str(caught.value).startswith(f"It fails: {file}, line {line}: {what}")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None  # for --debug


def test_what_is_for_the_user_already_stays_as_it_is() -> None:
    with pytest.raises(InputError, match="^as it is$"), own_code("It fails"):
        raise InputError("as it is")


def test_ctrl_c_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt), own_code("It fails"):
        raise KeyboardInterrupt

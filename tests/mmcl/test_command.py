import click
import pytest
from click.testing import CliRunner

from data_pipelines.errors import InputError
from mmcl.command import STOPPED, Teaching, debug_option, errors


@click.group(cls=Teaching)
def tools() -> None:
    """Tools."""


@tools.command()
@click.option("--error", type=click.Choice(["input", "stop", "bug", "none"]), default="none")
@debug_option
def zeta(error: str, debug: bool) -> None:
    with errors(debug, stopped="Stopped here."):
        if error != "none":
            raise {
                "input": InputError("a file\n is missing"),
                "stop": KeyboardInterrupt(),
                "bug": ZeroDivisionError("a bug"),
            }[error]
        click.echo("done")


@tools.command()
def alpha() -> None:
    pass


def run(*words: str):
    return CliRunner().invoke(tools, words, prog_name="tools")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [("input", 2, "mmcl: a file is missing\n"), ("stop", STOPPED, "mmcl: Stopped here.\n")],
)
def test_an_error_is_one_line(error: str, code: int, line: str) -> None:
    result = run("zeta", "--error", error)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", line)
    result = run("zeta", "--error", error, "--debug")
    assert result.exit_code == code
    assert result.stderr.startswith("Traceback") and result.stderr.endswith(line)


def test_what_is_no_error_and_what_is_a_bug_pass() -> None:
    assert run("zeta").stdout == "done\n"
    assert isinstance(run("zeta", "--error", "bug").exception, ZeroDivisionError)


def test_misuse_is_one_line_and_names_the_help() -> None:
    result = run("zeta", "--colour")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("mmcl: ") and result.stderr.count("\n") == 1
    assert result.stderr.endswith("`tools zeta --help` explains.\n")


def test_commands_stand_in_the_order_of_their_use() -> None:
    text = run("--help").stdout
    assert text.index("zeta") < text.index("alpha")

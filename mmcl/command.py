"""What every command is made of: help in the order of use, one line an error, exit codes."""

import contextlib
import functools
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from data_pipelines.errors import InputError
from data_pipelines.files import is_remote
from data_pipelines.names import nearest

STOPPED = 130  # exit code after Ctrl-C
WIDE = 160  # columns of a log file, where nothing should be folded

WAIT_S = 300  # for other processes, unless the user says otherwise

debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


class Step(click.ParamType):
    """A number of steps, or "best"."""

    name = "best|N"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if value == "best":
            return str(value)
        if not str(value).isdigit():
            self.fail(f"'{value}' should be 'best' or the number of a step.", param, ctx)
        return int(value)


class Workdir(click.Path):
    """A folder, as a Path, or a URL, as it is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if is_remote(str(value)) else super().convert(value, param, ctx)


step_option = click.option(
    "--step",
    type=Step(),
    metavar="best|N",
    help="Checkpoint: the best by config.checkpoint.best, or of that step.  [default: the newest]",
)


def arrays_of(step: int | str | None) -> Any:
    """Of which checkpoints a run at a URL is to be fetched with its arrays, for that step."""
    return "newest" if step is None else "all" if step == "best" else step


class Teaching(click.Group):
    """Commands in the order in which they are used; misuse of one is one line, as other errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **{**extra, "standalone_mode": False})
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "mmcl"
            said = " ".join(error.format_message().split())
            end = "" if said.endswith((".", "?")) else "."
            click.echo(f"mmcl: {said}{end} `{command} --help` explains.", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(STOPPED)


def process_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that may run in several processes, which meet when it calls `meet()`."""

    @functools.wraps(command)
    def run(
        *args: Any,
        coordinator: str | None,
        processes: int | None,
        process: int | None,
        wait: int,
        **options: Any,
    ) -> Any:
        def meet(preemptible: bool = False) -> None:
            from mmcl.processes import Given, start

            start(Given(coordinator, processes, process), wait, preemptible=preemptible)

        return command(*args, meet=meet, **options)

    for option in (
        click.option(
            "--wait",
            default=WAIT_S,
            show_default=True,
            type=click.IntRange(1),
            metavar="SECONDS",
            help="For other processes.",
        ),
        click.option("--process", type=click.IntRange(0), metavar="I", help="This one's number."),
        click.option(
            "--processes", type=click.IntRange(1), metavar="N", help="How many work together."
        ),
        click.option(
            "--coordinator",
            metavar="HOST:PORT",
            help="Where process 0 is; SLURM, Open MPI and TPU pods say it, and the next two.",
        ),
    ):
        run = option(run)
    return run


@contextlib.contextmanager
def errors(debug: bool, stopped: str = "Stopped.") -> Iterator[None]:
    """One line for what the user did wrong; a traceback only with --debug."""
    try:
        yield
    except (InputError, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        wrong = isinstance(error, InputError)
        line = " ".join(str(error).split()) if wrong else stopped
        click.echo(f"mmcl: {line}", err=True)
        sys.exit(2 if wrong else STOPPED)


def one_word(
    words: Sequence[str], rule: str, options: Sequence[str], default: str | None = None
) -> tuple[str, list[tuple[str, str]]]:
    """What a command is about, and overrides: `--config.a.b=1` or `--config.a.b 1` -> ("a.b", "1").

    Args:
        rule: of the command, for the message where there is not one such word.
        options: of the command.
        default: where there is none; None: there has to be one.

    Raises:
        InputError: there is not one, an unknown option, or an override without its value.
    """
    found, overrides = _parted(words, options)
    if not found and default is not None:
        return default, overrides
    if len(found) != 1:
        raise InputError(f"{rule}; {_said(found)}.")
    return found[0], overrides


def two_words(
    words: Sequence[str], rule: str, options: Sequence[str]
) -> tuple[str, str, list[tuple[str, str]]]:
    """The same of a command that is about two things."""
    found, overrides = _parted(words, options)
    if len(found) != 2:
        raise InputError(f"{rule}; {_said(found)}.")
    return found[0], found[1], overrides


def _parted(
    words: Sequence[str], options: Sequence[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """What is no option, and the overrides."""
    left, found, overrides = list(words), [], []
    while left:
        word = left.pop(0)
        if word.startswith("--config."):
            key, equals, value = word.removeprefix("--config.").partition("=")
            if not equals:
                if not left or left[0].startswith("--"):
                    raise InputError(f"{word} needs a value: {word}=VALUE.")
                value = left.pop(0)
            overrides.append((key, value))
        elif word.startswith("-"):
            raise InputError(f"There is no option '{word}'.{nearest(word, options)}")
        else:
            found.append(word)
    return found, overrides


def _said(found: Sequence[str]) -> str:
    if len(found) == 1:
        return f"there is one: {found[0]}"
    return f"these are {len(found)}: {', '.join(found)}" if found else "there is none"


def note(text: str) -> None:
    """What the user should know while a command goes on."""
    click.echo(f"mmcl: {text}", err=True)


def console(quiet: bool = False) -> Console:
    """Texts are printed as they are; where there is no terminal, nothing is folded to its width."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, markup=False, highlight=False, emoji=False, quiet=quiet)

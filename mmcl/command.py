"""What every command is made of: help in the order of use, one line an error, exit codes."""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import click

from data_pipelines.errors import InputError

STOPPED = 130  # exit code after Ctrl-C

debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


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

"""The command `mmcl methods`."""

import json

import click
from rich.table import Table

from mmcl.command import console, debug_option, errors
from mmcl.methods import counts, methods


@click.command("methods", short_help="Published methods, and which of them are here.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@debug_option
def methods_command(as_json: bool, debug: bool) -> None:
    """List the catalogue of published methods: which run, by what experiment, and
    whether its claim was shown; which are there in part; and which are not.

    \b
      mmcl methods
      mmcl methods --json

    A file says in its docstring whose method it is; see mmcl/methods.py.
    """
    with errors(debug):
        found = methods()
        if as_json:
            click.echo(json.dumps([one._asdict() for one in found], indent=1))
            return
        table = Table(box=None, pad_edge=False)
        for column in ("id", "method", "status", "where", "claim"):
            table.add_column(column, overflow="fold")
        for one in found:
            where = one.experiment or one.module or ""
            claim = "" if one.claim == "none" else one.claim.replace("_", " ")
            table.add_row(one.id, one.name, one.status, where, claim)
        console().print(table)
        click.echo(", ".join(f"{n} {status}" for status, n in counts(found).items()) + ".")

"""The commands and their options."""

from typing import Annotated

import typer
from rich.console import Console

from gradclip._cli.doctor import show_findings
from gradclip._version import __version__

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        typer.echo(f"gradclip {__version__}")
        raise typer.Exit


@app.callback()
def gradclip(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Gradient clipping that is right, fast, and the same on every array framework."""


@app.command()
def doctor() -> None:
    """Show versions, which adapters can be imported, and which kernels are used on which device.

    If you report a problem, include this output.
    """
    show_findings(Console())

"""The commands and their options. What a command needs is imported when it runs, so that each starts quickly."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gradclip._cli.logs import Columns, fail, load, need, say
from gradclip._version import __version__

if TYPE_CHECKING:
    from gradclip.monitor import History

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A log with gradient norms.", show_default=False)]
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help="Logs with gradient norms.", show_default=False)]
Norm = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of the norms, if its name is unusual.")]
Loss = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of the losses, if its name is unusual.")]
Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX", help="For a text log: a regular expression with groups norm and, if wanted, step, loss."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
MaxNorm = Annotated[float | None, typer.Option(min=0, help="A threshold to try; the suggested one if not given.")]
HELP = (
    "Gradient clipping that is right, fast, and the same on every array framework.\n\n"
    "FILE is a log with gradient norms: JSON Lines or CSV of gradclip's monitor, Transformers' trainer_state.json, "
    "Lightning's metrics.csv, a CSV export of W&B or MLflow, TensorBoard's event files or a folder of them, or text."
)
FIGURES = (".png", ".svg", ".pdf")


def _figure_name(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in FIGURES:
        raise typer.BadParameter(f"{str(path)!r} must end in .png, .svg or .pdf, the formats of figures.")
    return path


def _share(share: float) -> float:
    if not 0 < share < 1:
        raise typer.BadParameter(f"{share:g} is not greater than 0 and less than 1; 0.05 clips 5 % of the steps.")
    return share


Share = Annotated[float, typer.Option(callback=_share, help="The share of steps to clip, between 0 and 1.")]
Output = Annotated[
    Path, typer.Option("-o", "--output", callback=_figure_name, help="The figure's file: .png, .svg or .pdf.")
]
MaybeOutput = Annotated[
    Path | None, typer.Option("-o", "--output", callback=_figure_name, help="Draw a figure: .png, .svg or .pdf.")
]


def _show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        typer.echo(f"gradclip {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def gradclip(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Run the command that follows."""


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions, adapters, devices and kernels, and check that results are exact.

    If you report a problem, include this output. The exit status is 1 if something failed.
    """
    from gradclip._cli.doctor import findings_as_json, show_findings

    if as_json:
        found, well = findings_as_json()
        typer.echo(json.dumps(found, indent=2))
    else:
        well = show_findings(Console())
    if not well:
        raise typer.Exit(1)


@app.command()
def suggest(
    files: Files, norm: Norm = None, pattern: Pattern = None, share: Share = 0.05, as_json: Json = False
) -> None:
    """Suggest a max_norm from the norms in a log, and say why."""
    from gradclip._cli import suggest as suggesting

    console, failed = Console(), False
    for path in files:
        try:
            history = load(path, Columns(norm, None, pattern))
        except (OSError, ValueError) as error:
            failed = True
            say(error)
            continue
        if as_json:
            _print_json(suggesting.as_json(path, history, share))
        else:
            suggesting.show(console, path, history, share)
    if failed:
        raise typer.Exit(1)


@app.command()
def plot(
    file: File,
    output: Output = Path("norms.png"),
    parameters: Annotated[bool, typer.Option("--parameters", help="Draw the norm of each parameter instead.")] = False,
    max_norm: MaxNorm = None,
    norm: Norm = None,
    loss: Loss = None,
    pattern: Pattern = None,
) -> None:
    """Draw the norms of a log: norm, threshold, clipped and skipped steps, loss, distribution."""
    need("matplotlib", "plot")
    history = _loaded(file, Columns(norm, loss, pattern), parameters=parameters)
    from gradclip._cli.plot import draw

    try:
        draw(history, file.name, output, parameters=parameters, max_norm=max_norm)
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo(str(output))


@app.command()
def compare(
    file: File,
    output: MaybeOutput = None,
    max_norm: MaxNorm = None,
    norm: Norm = None,
    pattern: Pattern = None,
    as_json: Json = False,
) -> None:
    """Show what each policy would have done with the norms of a log."""
    if output is not None:
        need("matplotlib", "plot")
    history = _loaded(file, Columns(norm, None, pattern), parameters=True)
    from gradclip._cli import compare as comparing

    found = comparing.replays(history, _threshold(history) if max_norm is None else max_norm)
    if as_json:
        _print_json({"file": str(file), "steps": int(history.step.size), "policies": comparing.as_json(found)})
    else:
        comparing.show(Console(), file, history, found)
    if output is not None:
        from gradclip._cli.plot import draw_comparison

        try:
            draw_comparison(history, found, file.name, output)
        except (OSError, ValueError) as error:
            fail(error)


@app.command()
def watch(
    file: File,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks at the log.")] = 1.0,
    last: Annotated[int | None, typer.Option(min=2, help="Show only so many steps, the last ones.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show the log as it is now, and leave.")] = False,
    norm: Norm = None,
    loss: Loss = None,
    pattern: Pattern = None,
) -> None:
    """Show the norms in the terminal while a run writes the log. Ctrl-C ends it."""
    need("uniplot", "plot")
    from gradclip._cli.watch import watch as watching

    try:
        watching(file, Columns(norm, loss, pattern), Console(), every=every, last=last, once=once)
    except (OSError, ValueError) as error:
        fail(error)


def _loaded(path: Path, columns: Columns, *, parameters: bool = False) -> "History":
    try:
        return load(path, columns, parameters=parameters)
    except (OSError, ValueError) as error:
        fail(error)


def _threshold(history: "History") -> float | None:
    """Return the max_norm that is suggested; None: none."""
    from gradclip.monitor import suggest

    return suggest(history).max_norm


def _print_json(value: dict[str, Any]) -> None:
    """Print an object in one line. Inf and NaN, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

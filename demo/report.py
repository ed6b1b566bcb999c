"""The results of the runs: a table, and a conclusion of a sentence or two."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.backend import TEMPERATURE
from demo.style import COLOURS, counted, number
from demo.train import LAST, Run


def show_report(console: Console, runs: Sequence[Run]) -> None:
    """Print the table, with one column per run, and the conclusion."""
    table = Table(box=box.SIMPLE_HEAD, show_lines=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for run, colour in zip(runs, COLOURS, strict=True):
        table.add_column(run.rule.name, header_style=f"bold {colour}", ratio=1)
    table.add_row("steps survived", *(f"{run.survived:,} of {run.steps:,}" for run in runs))
    table.add_row("steps clipped", *map(_clipped, runs))
    table.add_row("largest norm", *(number(run.largest_norm) for run in runs))
    table.add_row("final loss", *map(_final_loss, runs), end_section=True)
    table.add_row("it writes", *map(_sample, runs))
    console.print(table)
    notes = (
        f"Loss: nats per character, the median of the last {LAST:.0%} of the steps.",
        f"Norm: before clipping. Text: sampled at temperature {TEMPERATURE} after {runs[0].prompt!r}.",
    )
    for note in notes:
        console.print(note, style="dim", highlight=False)
    console.print(f"\n{conclusion(runs)}\n", highlight=False)


def conclusion(runs: Sequence[Run]) -> str:
    """Return what the runs show. With other options, perhaps no run explodes."""
    free, *clipped = runs
    as_well = " as well" * (free.fatal is not None)
    if free.fatal is not None:
        first = f"Without clipping the network is lost: its loss is {free.fatal} at step {free.survived + 1:,}."
    else:
        first = f"Without clipping the network survived, with a final loss of {number(free.final_loss)}."
    rest = [
        f"Clipped {run.rule.name} it was lost{as_well}, at step {run.survived + 1:,}."
        if run.fatal is not None
        else f"Clipped {run.rule.name}, in {counted(run.clipped, 'step')} of {run.steps:,}, "
        f"it came to {number(run.final_loss)}."
        for run in clipped
    ]
    return "\n".join([first, *rest, "Same network, same text, same seed: only the clipping differs."])


def _clipped(run: Run) -> str:
    """Return the number of clipped steps and their share."""
    if not run.clipped:
        return "none"
    return f"{run.clipped:,} ({run.clipped / run.survived:.0%})"


def _final_loss(run: Run) -> Text:
    """Return the final loss; one that is not finite is highlighted."""
    return Text(number(run.final_loss), style="" if run.fatal is None else "bold red")


def _sample(run: Run) -> Text:
    """Return the network's text on one line, because line breaks would disturb the column."""
    if run.sample == run.prompt:
        return Text("nothing: its weights are not finite", style="dim")
    return Text(" ".join(run.sample.split()))

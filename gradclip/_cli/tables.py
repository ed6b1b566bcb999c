"""Tables that fit the terminal: where the columns have no room, each row becomes a list of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

__all__ = ["print_table"]

WIDEST: Final = 10_000
"""Columns of a terminal in which every table has room."""


def print_table(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 0) -> None:
    """Print a table, or, on a terminal that is too narrow for it, a line for each cell.

    Parameters
    ----------
    console
        Where to print.
    titles
        The title of each column.
    rows
        The cells of each row, as many as there are titles.
    left
        The number of columns, the first ones, that hold words and begin at the left; numbers end at the right.
    """
    wide = console.options.update(max_width=WIDEST)
    for heads in (titles, [title.replace(" ", "\n") for title in titles]):
        table = _columns(heads, rows, left)
        if Measurement.get(console, wide, table).maximum <= console.width:
            break
    else:
        table = _listed(titles, rows)
    console.print(table)


def _columns(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _listed(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(overflow="fold", style="bold")
    table.add_column(overflow="fold")
    for i, row in enumerate(rows):
        if i:
            table.add_row()
        for title, cell in zip(titles, row, strict=True):
            table.add_row(title, cell)
    return table

"""read: the `History` in a log that some tool wrote."""

import warnings
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TextIO

from gradclip.monitor._files._collector import Collector
from gradclip.monitor._files._csv import Csv, delimiter_of
from gradclip.monitor._files._error import ReadError
from gradclip.monitor._files._events import event_files, read_events
from gradclip.monitor._files._formats import Format, recognise
from gradclip.monitor._files._json import read_json
from gradclip.monitor._files._json_lines import JsonLines
from gradclip.monitor._files._notes import Notes
from gradclip.monitor._files._text import Text, compiled
from gradclip.monitor._history import History

__all__ = ["Lines", "begin", "read"]

START: Final = 2**16
"""Bytes at the start of a log by which its format is recognised."""

LONGEST_LINE: Final = 2**24
"""Bytes of a first line that is read whole, if it is longer: a row with the norms of 100,000 parameters has fewer."""

REPORT_EVERY: Final = 4096
"""Lines or events after which the progress is reported."""

ENCODINGS: Final = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig"))
"""Encodings by their first bytes. PowerShell writes UTF-16."""


class Lines(Protocol):
    """A format that is read line by line."""

    def feed(self, line: str, number: int) -> None:
        """Take a line; they are counted from 1."""


def read(
    path: str | PathLike[str],
    *,
    norm: str | None = None,
    loss: str | None = None,
    pattern: str | None = None,
    parameters: bool = True,
    on_note: Callable[[str], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> History:
    r"""Read gradient norms from a log. Its format is recognised by its content.

    These formats are known: the monitor's JSON Lines and CSV; Transformers' ``trainer_state.json``; Lightning's
    ``metrics.csv``; CSV exports of W&B and MLflow, and other tables with a header; TensorBoard's event files, or a
    folder of them; text in which a regular expression finds the norm.

    A log is read row by row. Rows that cannot be read are left out; where a step occurs again, as after a run was
    resumed, the later values are used. A note says so.

    Parameters
    ----------
    path
        A file, or a folder with TensorBoard's event files.
    norm, loss
        Names of the columns to read; None: recognised by their names, such as ``grad_norm`` or ``train/loss``.
    pattern
        For text: a regular expression with a group named ``norm`` and, if wanted, ``step`` and ``loss``. None: what
        is usual, such as "step: 10 loss: 2.31 grad_norm: 0.52".
    parameters
        Whether the norms of single parameters are read.
    on_note
        Called with each note; None: a note is a warning.
    on_progress
        Called now and then with the number of bytes read.

    Returns
    -------
    History
        The distinct steps in ascending order, with their norms.

    Raises
    ------
    ReadError
        If the format is not recognised or there is no norm. The message lists the columns that there are.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> log = pathlib.Path(tempfile.mkdtemp()) / "log.txt"
    >>> _ = log.write_text("step 1 loss 2.5 grad_norm 0.75\nstep 2 loss 2.25 grad_norm 3.5\n")
    >>> history = read(log)
    >>> history.norm
    array([0.75, 3.5 ])
    >>> read(log, pattern=r"step (?P<step>\d+) loss (?P<norm>\S+)").norm
    array([2.5 , 2.25])
    """
    place = Path(path)
    notes = Notes()
    if pattern is not None:
        norm = loss = None  # its groups say what is what
    into = Collector(notes, norm=norm, loss=loss, parameters=parameters)
    chosen = None if pattern is None else Text(into, compiled(pattern))
    report = on_progress or _ignore
    if place.is_dir():
        _read_events(event_files(place), into, report)
    else:
        _read_file(place, into, chosen, report)
    try:
        return _checked(place, into, chosen)
    finally:
        for text in notes.texts():
            (on_note or _warn)(text)


def begin(path: Path, stream: BinaryIO, into: Collector, chosen: Lines | None) -> tuple[Format, TextIO, Lines | None]:
    """Recognise the format of an open log. Return it with the log as text and, if it is line by line, its reader.

    Raises
    ------
    ReadError
        If the log is empty or its format is not recognised.
    """
    start = stream.read(START)
    if b"\n" not in start:
        start += stream.readline(LONGEST_LINE)
    stream.seek(0)
    encoding = next(name for mark, name in ENCODINGS if start.startswith(mark))
    head = start.decode(encoding, errors="replace")
    if not head.strip():
        raise ReadError(f"{path}: the file is empty")
    text = TextIOWrapper(stream, encoding, errors="replace")
    if chosen is not None:
        return "text", text, chosen
    kind = recognise(start, head)
    if kind is None:
        raise ReadError(
            f"{path}: not a format that is known: JSON Lines, Transformers' trainer_state.json, CSV with a header, a "
            "TensorBoard event file, text with 'grad_norm'. For other text, give --pattern, a regular expression such "
            "as 'iter (?P<step>\\d+) .* gnorm (?P<norm>\\S+)' (pattern= in Python)"
        )
    whole = head if len(start) < START else head.rpartition("\n")[0] or head
    return kind, text, _lines_reader(kind, whole, into)


def _lines_reader(kind: Format, head: str, into: Collector) -> Lines | None:
    if kind == "json lines":
        return JsonLines(into)
    if kind == "csv":
        return Csv(into, delimiter_of([line for line in head.splitlines() if line.strip()]) or ",")
    return Text(into, None) if kind == "text" else None


def _read_file(path: Path, into: Collector, chosen: Lines | None, report: Callable[[int], None]) -> None:
    with path.open("rb") as stream:
        kind, text, reader = begin(path, stream, into, chosen)
        if reader is not None:
            for number, line in enumerate(text, 1):
                reader.feed(line, number)
                if number % REPORT_EVERY == 0:
                    report(stream.tell())
        elif kind == "json":
            try:
                for _ in read_json(text, into):
                    report(stream.tell())
            except ReadError as error:
                raise ReadError(f"{path}: {error}") from None
    if kind == "events":
        _read_events([path], into, report)


def _read_events(paths: list[Path], into: Collector, report: Callable[[int], None]) -> None:
    into.notes.unit = "event"
    before = 0
    for path in paths:
        events: Iterator[int] = read_events(path, into)
        for count, done in enumerate(events):
            if count % REPORT_EVERY == 0:
                report(before + done)
        before += path.stat().st_size


def _checked(path: Path, into: Collector, chosen: Lines | None) -> History:
    if chosen is not None and not len(into) and not into.notes.faults:
        raise ReadError(f"{path}: no line matches --pattern")
    return into.history(path)


def _ignore(done: int) -> None:
    """Do nothing with the progress."""


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)

"""A JSON document: Transformers' trainer_state.json, or a list of rows. It is read row by row, never as a whole."""

import json
import re
from collections.abc import Iterator
from typing import Final, TextIO

from gradclip.monitor._files._collector import Collector
from gradclip.monitor._files._error import ReadError

__all__ = ["read_json"]

CHUNK: Final = 2**16
LONGEST_ROW: Final = 2**20
"""What is not complete within a MiB is taken for broken."""

OVERLAP: Final = 64
"""Characters kept while the list is looked for: more than ``"log_history": [`` has."""

_ROWS: Final = re.compile(r'"log_history"\s*:\s*\[|\A\s*\[')
_NEXT: Final = re.compile(r"[\s,]*([{\]])")
_decode: Final = json.JSONDecoder().raw_decode


def read_json(stream: TextIO, into: Collector) -> Iterator[None]:
    """Read a document's rows: the list ``log_history``, or the document if it is a list. Yields after each chunk.

    Raises
    ------
    ReadError
        If there is no such list.
    """
    text = _Window(stream)
    while not (start := _ROWS.search(text.held)):
        text.drop(max(0, len(text.held) - OVERLAP))
        if not text.more():
            raise ReadError('a JSON document without a list "log_history", which Transformers\' trainer_state.json has')
        yield
    text.drop(start.end())
    while not (found := _NEXT.match(text.held)) or found[1] != "]":
        row, end = _row(text.held, found.start(1)) if found else (None, 0)
        if row is not None:
            into.row(row, text.line_at(end))
            text.drop(end)
        elif len(text.held) <= LONGEST_ROW and text.more():
            yield
        else:
            line = text.line_at(found.start(1) if found else len(text.held))
            more = text.skip_to_row(after=found.start(1) + 1 if found else 0)
            into.notes.fault(line, "not JSON" if more else "incomplete, at the end")
            if not more:
                return


def _row(text: str, start: int) -> tuple[dict[str, object] | None, int]:
    try:
        row, end = _decode(text, start)
    except (ValueError, RecursionError):
        return None, start
    return row, end


class _Window:
    """The part of a document that is being read, and the number of its first line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.held = ""
        self.line = 1

    def more(self) -> bool:
        """Read another chunk; False at the end."""
        chunk = self._stream.read(CHUNK)
        self.held += chunk
        return bool(chunk)

    def line_at(self, place: int) -> int:
        """Return the number of the line of a character that is held."""
        return self.line + self.held.count("\n", 0, place)

    def drop(self, count: int) -> None:
        """Forget characters at the start."""
        self.line = self.line_at(count)
        self.held = self.held[count:]

    def skip_to_row(self, after: int) -> bool:
        """Forget everything before the next object; False if there is none."""
        while (place := self.held.find("{", after)) < 0:
            self.drop(len(self.held))
            after = 0
            if not self.more():
                return False
        self.drop(place)
        return True

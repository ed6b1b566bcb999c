"""Follow: a log that a run is still writing."""

from os import stat_result
from pathlib import Path

from gradclip.monitor._files._collector import Collector
from gradclip.monitor._files._notes import Notes
from gradclip.monitor._files._read import Lines, begin, read
from gradclip.monitor._files._text import Text, compiled
from gradclip.monitor._history import History

__all__ = ["Follow"]


class Follow:
    """Reads what a run adds to its log. Of a log with one row a line, only the new lines are read.

    Parameters
    ----------
    path
        A file, or a folder with TensorBoard's event files; it need not exist yet.
    norm, loss, pattern
        As for `read`.
    """

    def __init__(self, path: Path, *, norm: str | None, loss: str | None, pattern: str | None) -> None:
        self._path = path
        plain = pattern is None
        self._norm, self._loss = (norm, loss) if plain else (None, None)
        self._text = pattern
        self._pattern = None if pattern is None else compiled(pattern)
        self._seen: tuple[int, int, int] | None = None
        self._tail: _Tail | None = None

    def poll(self) -> History | None:
        """Return the history up to now, or None if the log has not changed since the last call.

        Raises
        ------
        ReadError
            If the log's format is not recognised. A log without norms is waited for: the next call may find one.
        OSError
            If the log is not there.
        """
        state = self._path.stat()
        seen = (state.st_ino, state.st_size, state.st_mtime_ns)
        if seen == self._seen and not self._path.is_dir():
            return None
        history = self._read(state)
        self._seen = seen
        return history

    def _read(self, state: stat_result) -> History:
        if self._path.is_dir():
            return self._whole()
        if self._tail is None or not self._tail.continues(state):
            self._tail = self._start(state)
        if self._tail is None:
            return self._whole()
        self._tail.read()
        return self._tail.into.history(self._path)

    def _whole(self) -> History:
        return read(self._path, norm=self._norm, loss=self._loss, pattern=self._text, parameters=False, on_note=_ignore)

    def _start(self, state: stat_result) -> "_Tail | None":
        into = Collector(Notes(), norm=self._norm, loss=self._loss, parameters=False)
        chosen = None if self._pattern is None else Text(into, self._pattern)
        with self._path.open("rb") as stream:
            _, text, reader = begin(self._path, stream, into, chosen)
            first = stream.readline() if stream.seek(0) == 0 else b""
        utf8 = text.encoding.startswith("utf-8")
        return _Tail(self._path, state.st_ino, first, reader, into) if reader is not None and utf8 else None


def _ignore(note: str) -> None:
    """Do nothing: a note at every look would hide the plot."""


class _Tail:
    """How far a log has been read."""

    def __init__(self, path: Path, inode: int, first: bytes, reader: Lines, into: Collector) -> None:
        self.into = into
        self._path = path
        self._inode = inode
        self._first = first
        self._reader = reader
        self._offset = 0
        self._lines = 0

    def continues(self, state: stat_result) -> bool:
        """Return whether the log was only added to. Lightning writes metrics.csv anew when a column is added."""
        if state.st_ino != self._inode or state.st_size < self._offset:
            return False
        with self._path.open("rb") as stream:
            return stream.readline() == self._first

    def read(self) -> None:
        """Read the lines that are complete and new."""
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._lines += 1
                encoding = "utf-8-sig" if self._lines == 1 else "utf-8"
                self._reader.feed(line.decode(encoding, errors="replace"), self._lines)

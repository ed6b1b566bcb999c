"""TensorBoard's event files. The package ``tensorboard`` reads them; the extra ``tensorboard`` installs it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gradclip.monitor._files._error import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gradclip.monitor._files._collector import Collector

__all__ = ["event_files", "read_events"]

RECORD_EXTRA = 16
"""Bytes of a record beside the event: its length and two checksums."""


def event_files(folder: Path) -> list[Path]:
    """Return a folder's event files, the oldest first.

    Raises
    ------
    ReadError
        If there are none, or if they are in several folders, which are several runs.
    """
    found = sorted(folder.rglob("*tfevents*"))
    folders = sorted({str(path.parent) for path in found})
    if not found:
        raise ReadError(f"{folder}: a folder without TensorBoard event files. Give the file of a log itself")
    if len(folders) > 1:
        listed = ", ".join(folders[:8]) + (" …" if len(folders) > 8 else "")
        raise ReadError(f"{folder}: {len(folders):,} folders with TensorBoard event files. Choose one of {listed}")
    return found


def read_events(path: Path, into: Collector) -> Iterator[int]:
    """Read a file's scalars. Yields the number of bytes read, after each event.

    Raises
    ------
    ReadError
        If ``tensorboard`` is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ReadError(f'{path}: a TensorBoard event file needs tensorboard: pip install "gradclip[tensorboard]"')
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    event_of = import_module("tensorboard.compat.proto.event_pb2").Event.FromString  # its names are made at run time
    done = 0
    for count, record in enumerate(RawEventFileLoader(str(path)).Load(), 1):
        event = event_of(record)
        for value in event.summary.value:
            into.value(value.tag, event.step, _scalar(value), count)
        done += len(record) + RECORD_EXTRA
        yield done
    if done < (size := path.stat().st_size):
        into.notes.remark(f"{path.name}: {size - done:,} bytes at the end are not a complete event; left out")


def _scalar(value: Any) -> float | None:
    """Return a scalar's value; None for images, histograms and texts."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.tensor.tensor_shape.dim or not value.tensor.dtype:
        return None
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(value.tensor)
    return float(array) if array.dtype.kind in "fiub" else None

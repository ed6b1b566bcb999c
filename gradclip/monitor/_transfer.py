"""`Transfer`: rows on their way from a device to the host."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradclip import _namespace as ns
from gradclip.monitor._row import Known, Row, reduced

Numbers = float | Sequence[float] | NDArray[Any]
"""A number, or several."""

_NOTHING = np.empty(0)


class _Place(NamedTuple):
    """Where the numbers of a value are after the copy: in the array of one type, device and dtype."""

    key: tuple[Any, ...]
    numel: int


class Transfer:
    """Starts to copy the numbers of rows to the host, all of one device and dtype together, and does not wait.

    Parameters
    ----------
    rows : sequence of Row
        Their numbers may be floats, or arrays of any framework and device.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        groups: dict[tuple[Any, ...], list[Any]] = {}
        self._places: list[_Place | Numbers] = []
        for value in _values(rows):
            if (here := _on_host(value)) is not None:
                self._places.append(here)
                continue
            key = type(value), ns.device(value), value.dtype
            self._places.append(_Place(key, ns.numel(value)))
            groups.setdefault(key, []).append(value)
        self._copies = {key: _begin(_joined(values)) for key, values in groups.items()}

    @property
    def is_done(self) -> bool:
        """Whether all numbers were on the host already."""
        return not self._copies

    def finish(self) -> list[Known]:
        """Wait until the numbers are on the host, and return the rows."""
        copied = {key: iter(read()) for key, read in self._copies.items()}
        found = iter(self._places)

        def following() -> Numbers:
            place = next(found)
            return list(islice(copied[place.key], place.numel)) if isinstance(place, _Place) else place

        known = []
        for row in self._rows:
            numbers = {name: reduced(name, following()) for name in row.numbers}
            known.append(Known(row.step, numbers, row.names, _end_to_end([following() for _ in row.norms])))
        return known


def _end_to_end(found: Sequence[Numbers]) -> NDArray[Any]:
    """Return numbers as one array."""
    if len(found) == 1:  # the usual case: one array of all parameters' norms
        return np.atleast_1d(found[0])
    return np.hstack(found) if found else _NOTHING


def _values(rows: Sequence[Row]) -> Iterator[Any]:
    for row in rows:
        yield from row.numbers.values()
        yield from row.norms


def _on_host(value: Any) -> Numbers | None:
    """Return the numbers of a value that the host can read at once, else None."""
    if isinstance(value, float | int):  # and bool
        return float(value)
    if isinstance(value, np.ndarray) and value.ndim:
        return value.reshape(-1)
    if not getattr(value, "is_cpu", False):  # a tensor of PyTorch says it in less time
        if not ns.is_array(value):
            return float(value)
        if not ns.is_host(value):
            return None
    if not value.ndim:
        return float(value.item())
    try:
        return np.asarray(value).reshape(-1)
    except TypeError:  # NumPy has no bfloat16
        return np.asarray(value.tolist()).reshape(-1)


def _joined(values: Sequence[Any]) -> Any:
    """Return the numbers of arrays, laid end to end on their device."""
    xp = ns.namespace(values)
    return xp.concat([xp.reshape(value, (-1,)) for value in values])


def _begin(numbers: Any) -> Callable[[], Sequence[Any]]:
    """Start a copy to the host where the framework can do that without waiting; return what waits and reads it."""
    if hasattr(numbers, "copy_to_host_async"):  # JAX
        numbers.copy_to_host_async()
        return lambda: np.asarray(numbers).tolist()
    if getattr(numbers, "is_cuda", False):  # PyTorch, which the user imported
        copy = numbers.to("cpu", non_blocking=True)
        copied = sys.modules["torch"].cuda.current_stream(numbers.device).record_event()

        def read() -> list[Any]:
            copied.synchronize()
            listed: list[Any] = copy.tolist()
            return listed

        return read
    return lambda: numbers.tolist()

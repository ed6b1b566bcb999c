"""``NormMonitor``: collects norms over time, without waiting for a device at each step."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradclip._types import AnyScalar
from gradclip._words import kind, short
from gradclip.monitor._histogram import LogHistogram
from gradclip.monitor._history import History
from gradclip.monitor._rows import NAMES, PARAMETER, fetched
from gradclip.monitor._suggest import Suggestion, suggest
from gradclip.monitor._summary import Summary, summary
from gradclip.monitor._writers import writer_of

_READ = ("norm", "coefficient", "clipped", "skipped")
"""What is read of a handle of `attach`, or of a `Clipper`, under the same names."""


class NormMonitor:
    """Collects the norm of each step, its threshold, and what was done; summarises them, and suggests a threshold.

    What is recorded may be arrays on a device. They are kept there and fetched together, every ``fetch_every`` steps,
    or when something is asked: the host waits for the device only then. The last ``window`` steps are kept exactly, all
    steps in a histogram of fixed size, so that memory is bounded for millions of steps.

    Parameters
    ----------
    source : object, optional
        What to watch: the handle of `gradclip.backends.torch.attach`, or a `gradclip.Clipper`. Without it, call
        `record` at each step, or `update` with the state of a transform of optax.
    parameters : callable, optional
        Returns the norm of each parameter's gradient by name, as ``lambda: grad_norms(model)`` does. It is called after
        each clipping; the norms are divided by the coefficient, so that they are those before clipping.
    window : int
        The number of steps that are kept exactly.
    fetch_every : int
        The number of steps after which arrays are fetched from a device.
    writers : sequence
        Where each step is written when it is fetched: paths that end in .jsonl or .csv, which are appended to, and
        objects with ``add_scalar``, such as TensorBoard's SummaryWriter.

    Raises
    ------
    TypeError
        If ``source`` cannot be watched, or a writer is none.
    ValueError
        If ``window`` or ``fetch_every`` is less than 1.

    Examples
    --------
    >>> from gradclip.monitor import NormMonitor
    >>> monitor = NormMonitor()
    >>> for norm in [1.0, 1.2, 9.0] * 20:
    ...     monitor.record(norm, max_norm=2.0, clipped=norm > 2.0)
    >>> monitor.last()
    {'grad_norm': 9.0, 'gradclip/max_norm': 2.0, 'gradclip/clipped': 1.0}
    >>> round(monitor.summary().clipped, 3)
    0.333
    """

    def __init__(
        self,
        source: Any = None,
        *,
        parameters: Callable[[], Mapping[str, AnyScalar]] | None = None,
        window: int = 10_000,
        fetch_every: int = 100,
        writers: Sequence[object] = (),
    ) -> None:
        for name, value in (("window", window), ("fetch_every", fetch_every)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={short(value)}, expected an integer of at least 1; pass a number of steps")
        self._writers = list(map(writer_of, writers))
        self._parameters, self._fetch_every = parameters, fetch_every
        self._waiting: list[tuple[int, dict[str, AnyScalar]]] = []
        self._window: deque[tuple[int, dict[str, float]]] = deque(maxlen=window)
        self._next = 0
        self.histogram = LogHistogram()
        if source is not None:
            observers = getattr(source, "observers", None)
            if not isinstance(observers, list):
                raise TypeError(
                    f"source is {kind(source)}, expected the handle of attach() or a Clipper; call record() or update()"
                    " at each step for anything else"
                )
            observers.append(self._observe)

    def record(
        self,
        norm: AnyScalar,
        *,
        step: int | None = None,
        max_norm: AnyScalar | None = None,
        coefficient: AnyScalar | None = None,
        clipped: AnyScalar | None = None,
        skipped: AnyScalar | None = None,
        update_norm: AnyScalar | None = None,
        loss: AnyScalar | None = None,
        parameters: Mapping[str, AnyScalar] | None = None,
    ) -> None:
        """Record a step. The host does not wait for arrays on a device.

        Parameters
        ----------
        norm : float or array
            The norm before clipping.
        step : int, optional
            The number of the step; by default one more than the last.
        max_norm, coefficient, clipped, skipped, update_norm, loss : float or array, optional
            What else is known of the step. Of an array of several numbers, the smallest is kept.
        parameters : mapping of str to float or array, optional
            The norm of each parameter's gradient before clipping.
        """
        row = {"norm": norm}
        given = (max_norm, coefficient, clipped, skipped, update_norm, loss)
        named = zip(("max_norm", *_READ[1:], "update_norm", "loss"), given, strict=True)
        row |= {name: value for name, value in named if value is not None}
        if parameters is not None:
            row |= {PARAMETER + name: value for name, value in parameters.items()}
        at = self._next if step is None else step
        self._next = at + 1
        self._waiting.append((at, row))
        if len(self._waiting) >= self._fetch_every:
            self.fetch()

    def update(self, state: Any, **others: Any) -> None:
        """Record the step that a state of a transform of optax describes: it has ``norm`` and ``coefficient``.

        Parameters
        ----------
        state : ClipState
            Of `gradclip.backends.optax`, after ``update``.
        **others
            What else is known of the step, as for `record`.
        """
        coefficient = getattr(state, "coefficient", None)
        if not hasattr(state, "norm") or coefficient is None:
            raise TypeError(
                f"state is {kind(state)}, expected the ClipState of a transform of gradclip.backends.optax; pass it "
                "alone, not the state of the whole chain"
            )
        self.record(state.norm, coefficient=coefficient, clipped=coefficient < 1, **others)

    def fetch(self) -> None:
        """Fetch what is still on a device, and write it."""
        waiting, self._waiting = self._waiting, []
        rows = fetched([row for _, row in waiting])
        self.histogram.add([row["norm"] for row in rows])
        for (step, _), row in zip(waiting, rows, strict=True):
            self._window.append((step, row))
            named = _named(row)
            for writer in self._writers:
                writer.write(step, named)

    def last(self) -> dict[str, float]:
        """Return the last step as floats by the names that loggers show: for ``wandb.log``, MLflow and others."""
        self.fetch()
        return _named(self._window[-1][1]) if self._window else {}

    def history(self) -> History:
        """Return the steps of the window."""
        self.fetch()
        rows = [row for _, row in self._window]
        fields = {name: _column(rows, name) for name in ("max_norm", "coefficient", "loss")}
        flags = {name: _column(rows, name) for name in ("clipped", "skipped")}
        names = dict.fromkeys(name for row in rows for name in row if name.startswith(PARAMETER))
        return History(
            np.array([step for step, _ in self._window], np.int64),
            np.array([row["norm"] for row in rows], np.float64),
            **fields,
            **{name: None if column is None else column == 1 for name, column in flags.items()},
            parameters={
                name.removeprefix(PARAMETER): np.array([row.get(name, math.nan) for row in rows]) for name in names
            },
        )

    def summary(self) -> Summary:
        """Return percentiles, shares and spikes of the window, as `gradclip.monitor.summary` does."""
        return summary(self.history())

    def suggest(self, *, share: float = 0.05) -> Suggestion:
        """Return a threshold for the window's norms with the reason, as `gradclip.monitor.suggest` does."""
        return suggest(self.history(), share=share)

    def state_dict(self) -> dict[str, Any]:
        """Return all that was recorded as plain numbers."""
        self.fetch()
        window = [(step, dict(row)) for step, row in self._window]
        return {"next": self._next, "window": window, "histogram": self.histogram.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; steps go on from there."""
        self._waiting, self._next = [], int(state_dict["next"])
        self._window.clear()
        self._window.extend((int(step), dict(row)) for step, row in state_dict["window"])
        self.histogram.load_state_dict(state_dict["histogram"])

    def _observe(self, source: Any) -> None:
        """Record what a source shows after a step."""
        shown = {name: getattr(source, name) for name in _READ if name != "skipped"}
        shown["skipped"] = (
            source.decision.skipped if hasattr(source, "decision") else source.skipped
        )  # not read by a loop
        coefficient, parameters = shown["coefficient"], None
        if self._parameters is not None:
            parameters = {name: norm / coefficient for name, norm in self._parameters().items()}
        threshold = source.threshold if hasattr(source, "threshold") else source.max_norm
        self.record(**shown, max_norm=threshold, parameters=parameters)


def _named(row: Mapping[str, float]) -> dict[str, float]:
    return {NAMES.get(name, name): value for name, value in row.items()}


def _column(rows: Sequence[Mapping[str, float]], name: str) -> Any:
    """Return a column of numbers, NaN where a row has none; None if no row has one."""
    if not any(name in row for row in rows):
        return None
    return np.array([row.get(name, math.nan) for row in rows], np.float64)

"""`NormMonitor`: collects norms over time, without waiting for a device at each step."""

import atexit
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from gradclip._types import AnyArray, AnyScalar
from gradclip._words import short
from gradclip.monitor._collected import Collected
from gradclip.monitor._histogram import LogHistogram
from gradclip.monitor._history import History
from gradclip.monitor._observer import Observer, measure_of, observers_of
from gradclip.monitor._row import KEYS, NamedNorms, Row, logged, parameters_of, snapshot
from gradclip.monitor._sources import numbers_of, numbers_of_state
from gradclip.monitor._suggest import Suggestion, suggest
from gradclip.monitor._summary import Summary
from gradclip.monitor._updates import Updates


class NormMonitor:
    """Collects the norm of each step, its threshold, and what was done; summarises them, and suggests a threshold.

    Arrays on a device stay there at first. Every ``fetch_every`` steps, their copy to the host is started, and it is
    read as many steps later, so that a step does not wait for the device (JAX and CUDA; other devices are waited for
    every ``fetch_every`` steps). What asks for results waits: `fetch`, `last`, `history`, `summary`, `suggest`,
    `state_dict`.

    The last ``window`` steps or more are kept exactly. Of all steps, a histogram, counts and the 100 largest spikes are
    kept: memory is bounded for millions of steps, at 16 bytes for each number of a step and step of the window.

    Parameters
    ----------
    source : object, optional
        What to watch: the handle of `gradclip.backends.torch.attach`, or a `gradclip.Clipper`. Without it, call
        `record` at each step, or `update` with the state of a transform of optax.
    parameters : Module, Optimizer, iterable, dict or callable, optional
        Whose norms to record as well, parameter by parameter. With a handle: as for
        `gradclip.backends.torch.grad_norms`; their norms are taken before clipping. Else a callable that returns norms
        by name, or names and an array of norms. A handle calls it before clipping, a clipper after it.
    updates : torch.optim.Optimizer, optional
        The optimizer of a handle, to record also the norm of the change of its parameters at each step. This takes a
        copy of them, and time.
    window : int
        The least number of steps that are kept exactly; at most twice as many are.
    fetch_every : int
        The number of steps that are copied to the host together, and written together.
    writers : str, Path, object, or sequence of these
        Where each step is written: paths that end in .jsonl or .csv, which are appended to, and objects with
        ``add_scalar``, such as TensorBoard's SummaryWriter. What is not yet written when Python ends, by an exception
        too, is written then.

    Raises
    ------
    TypeError
        If ``source`` cannot be watched, a writer is none, or ``parameters`` or ``updates`` do not go with the source.
    ValueError
        If ``window`` or ``fetch_every`` is less than 1, or a path has an unknown suffix or is in no folder.

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

    A clipper, or the handle of `attach`, is watched from then on:

    >>> import numpy as np, gradclip
    >>> clipper = gradclip.Clipper(1.0)
    >>> monitor = NormMonitor(clipper)
    >>> grads, norm = clipper([np.array([3.0, 4.0])])
    >>> monitor.last()["grad_norm"]
    5.0
    """

    def __init__(
        self,
        source: Any = None,
        *,
        parameters: Any = None,
        updates: Any = None,
        window: int = 10_000,
        fetch_every: int = 100,
        writers: object = (),
    ) -> None:
        for name, value in (("window", window), ("fetch_every", fetch_every)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={short(value)}, expected an integer of at least 1; pass a number of steps")
        if source is None and not (parameters is None and updates is None):
            raise TypeError(
                "parameters or updates was given without a source, expected a handle or a clipper, which says when to "
                "measure them; pass their norms to record()"
            )
        self._observers = [] if source is None else observers_of(source)
        self._observer = Observer(self._watch, None if parameters is None else measure_of(source, parameters))
        self._collected = Collected(window, writers)
        self._updates = None if updates is None else Updates(updates, self._note_update)
        self._fetch_every, self._next = fetch_every, 0
        self._rows: list[Row] = []
        self._observers.append(self._observer)
        if writers:
            atexit.register(_fetch_at_exit, weakref.ref(self))

    @property
    def histogram(self) -> LogHistogram:
        """The histogram of the norms of all steps."""
        self.fetch()
        return self._collected.totals.histogram

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
        parameters: NamedNorms | None = None,
    ) -> None:
        """Record a step. Arrays are copied where they are; the host does not wait for a device.

        Parameters
        ----------
        norm : float or array
            The norm before clipping: 0-d, or one for each group of gradients.
        step : int, optional
            The number of the step; by default one more than the last, beginning with 0.
        max_norm, coefficient, clipped, skipped, update_norm, loss : float or array, optional
            What else is known of the step.
        parameters : mapping of str to float or array, or pair, optional
            The norm of each parameter's gradient before clipping; or their names, and an array of shape ``(names,)``.

        Raises
        ------
        TypeError
            If ``step`` is not an integer, or another argument neither a number nor an array.
        """
        if norm is None:
            raise TypeError("norm is None, expected a number or an array; pass the norm before clipping, or math.nan")
        given = (norm, max_norm, coefficient, clipped, skipped, update_norm, loss)
        numbers = {name: snapshot(value) for name, value in zip(KEYS, given, strict=True) if value is not None}
        names, norms = ((), []) if parameters is None else parameters_of(parameters)
        self._append(numbers, names, [snapshot(value) for value in norms], step)

    def update(self, state: Any, **others: Any) -> None:
        """Record the step that a state of optax describes.

        Parameters
        ----------
        state : ClipState, PolicyState, SkipState or tuple
            Of a transform of `gradclip.backends.optax`, after its ``update``; or the state of a chain with one of them.
            It may be donated to the next step. With `skip_steps`, the norm is that before the step was skipped or
            clipped; coefficient and threshold of a step that was not skipped are those of the clipping inside.
        **others
            What else is known of the step, as for `record`: ``update_norm=optax.tree.norm(updates)``.

        Raises
        ------
        TypeError
            If it holds no state of clipping or of skipped steps.
        ValueError
            If it holds several.
        """
        self.record(**{**numbers_of_state(state), **others})

    def note(self, **numbers: AnyScalar) -> None:
        """Add numbers to the last step: ``monitor.note(loss=loss)`` after ``optimizer.step()``.

        Parameters
        ----------
        **numbers : float or array
            By the names of the arguments of `record`.

        Raises
        ------
        RuntimeError
            If there is no step, or the last one was fetched already.
        TypeError
            If an argument has another name.
        """
        if unknown := [name for name in numbers if name not in KEYS]:
            raise TypeError(f"{unknown[0]} was given, expected one of {', '.join(KEYS)}; they are those of record()")
        if not self._rows:
            raise RuntimeError(
                "there is no step to add to, expected one that was not fetched yet; call note() after a step, before "
                "last() and what else gives results"
            )
        self._rows[-1].numbers.update((name, snapshot(value)) for name, value in numbers.items())

    def remove(self) -> None:
        """Stop watching the source, and write what was recorded. A second call does nothing."""
        if self._observer in self._observers:
            self._observers.remove(self._observer)
        self.fetch()

    def fetch(self) -> None:
        """Wait for all that was recorded, and write it."""
        rows, self._rows = self._rows, []
        self._collected.begin(rows)
        self._collected.finish()

    def last(self) -> dict[str, float]:
        """Return the last step as floats by the names that loggers show; empty before the first.

        ``wandb.log``, ``mlflow.log_metrics``, ``trackio.log`` and ``swanlab.log`` take it. The keys are ``grad_norm``
        (before clipping), ``grad_norm/<parameter>``, ``gradclip/max_norm``, ``gradclip/coefficient``,
        ``gradclip/clipped``, ``gradclip/skipped``, ``update_norm`` and ``loss``, as far as they were recorded.
        """
        self.fetch()
        return {} if self._collected.last is None else logged(self._collected.last)

    def history(self) -> History:
        """Return the steps of the window."""
        self.fetch()
        return self._collected.window.history()

    def summary(self) -> Summary:
        """Return percentiles, shares and spikes of all steps, as `gradclip.monitor.summary` does for a history.

        If there were more steps than the window holds, the percentiles are right to 1 %, and of the spikes before the
        window the 100 largest are there. The shares of parameters are those of the window.
        """
        self.fetch()
        return self._collected.summary()

    def suggest(self, *, share: float = 0.05) -> Suggestion:
        """Return a threshold for the norms of the window, with the reason, as `gradclip.monitor.suggest` does.

        Parameters
        ----------
        share : float
            The share of steps to clip, greater than 0 and less than 1.
        """
        return suggest(self.history(), share=share)

    def state_dict(self) -> dict[str, Any]:
        """Return all that was recorded as plain numbers, lists and dicts, for any checkpoint."""
        self.fetch()
        return {"next": self._next, **self._collected.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned. What this monitor recorded is forgotten; steps go on from there.

        Parameters
        ----------
        state_dict : dict
            Of a monitor.

        Raises
        ------
        TypeError
            If it is something else.
        """
        if not isinstance(state_dict, Mapping) or not {"next", "window", "totals"} <= set(state_dict):
            raise TypeError(f"state_dict is {short(state_dict)}, expected what state_dict() of a monitor returned")
        self._rows = []
        self._collected.load_state_dict(state_dict)
        self._next = int(state_dict["next"])

    def _append(
        self, numbers: dict[str, AnyScalar], names: tuple[str, ...], norms: Sequence[AnyScalar], step: int | None = None
    ) -> None:
        if len(self._rows) >= self._fetch_every:  # asked here, because `note` may add to the last row until now
            rows, self._rows = self._rows, []
            self._collected.begin(rows)
        at = self._next if step is None else _whole(step)
        self._next = at + 1
        self._rows.append(Row(at, numbers, names, norms))

    def _watch(self, source: Any, found: NamedNorms | None) -> None:
        """Record what a source says of its last step, and norms of parameters."""
        names, norms = ((), ()) if found is None else parameters_of(found)
        self._append(numbers_of(source), names, norms)
        if self._updates is not None:
            self._updates.begin()

    def _note_update(self, norm: AnyArray) -> None:
        if self._rows:
            self._rows[-1].numbers["update_norm"] = norm


def _whole(step: object) -> int:
    if not isinstance(step, SupportsIndex):
        raise TypeError(f"step={short(step)}, expected an integer; pass the number of the step")
    return step.__index__()


def _fetch_at_exit(reference: "weakref.ref[NormMonitor]") -> None:
    monitor = reference()
    if monitor is not None:
        monitor.fetch()

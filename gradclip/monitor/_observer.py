"""`Observer`: what a handle or a clipper calls at each step, for a monitor."""

from collections.abc import Callable, Mapping
from typing import Any

from gradclip._types import AnyScalar
from gradclip._words import kind
from gradclip.monitor._row import NamedNorms

Record = Callable[[Any, NamedNorms | None], object]
Measure = Callable[[], NamedNorms]


class Observer:
    """Measures the norms of parameters before clipping, where the source says when that is, and records each step.

    It is copied and pickled without the monitor, which belongs to one source: a copy does nothing.

    Parameters
    ----------
    record : callable, optional
        Called with the source and the norms of parameters after each clipping.
    measure : callable, optional
        Returns the norms of parameters.
    """

    def __init__(self, record: Record | None = None, measure: Measure | None = None) -> None:
        self._record, self._measure = record, measure
        self._found: NamedNorms | None = None

    def before_clipping(self, _: Any, scale: AnyScalar) -> None:
        """Measure the norms of parameters, whose gradients are multiplied by ``scale``."""
        if self._measure is not None:
            self._found = _divided(self._measure(), scale)

    def __call__(self, source: Any) -> None:
        """Record a step."""
        if self._record is not None:
            found, self._found = self._found, None
            if found is None and self._measure is not None:
                found = self._measure()
            self._record(source, found)

    def __reduce__(self) -> tuple[type["Observer"], tuple[()]]:
        return Observer, ()


def observers_of(source: Any) -> list[Any]:
    """Return the list of functions that a source calls after each clipping.

    Raises
    ------
    TypeError
        If it has none.
    """
    observers = getattr(source, "observers", None)
    if not isinstance(observers, list):
        raise TypeError(
            f"source is {kind(source)}, expected the handle of attach(), of gradclip.backends.torch, or a "
            "gradclip.Clipper; for anything else, call record() or update() at each step"
        )
    return observers


def measure_of(source: Any, parameters: Any) -> Measure:
    """Return what measures the norms of parameters: a callable as it is, else what the source makes of them.

    Raises
    ------
    TypeError
        If the source can make nothing of them.
    """
    named_norms = getattr(source, "named_norms", None)
    if named_norms is not None and (hasattr(parameters, "parameters") or not callable(parameters)):
        made: Measure = named_norms(parameters)
        return made
    if not callable(parameters):
        raise TypeError(
            f"parameters is {kind(parameters)}, expected a callable that returns norms by name, because the source is "
            f"{kind(source)} and no handle of attach(); pass lambda: gradclip.leaf_norms(grads)"
        )
    given: Any = parameters
    measure: Measure = given
    return measure


def _divided(found: NamedNorms, scale: AnyScalar) -> NamedNorms:
    if isinstance(scale, float) and scale == 1:
        return found
    if isinstance(found, Mapping):
        return {name: norm / scale for name, norm in found.items()}
    names, norms = found
    return names, norms / scale

"""What a monitor reads of a handle, of a clipper and of a state of optax, by the names of attributes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradclip._types import AnyScalar
from gradclip._words import kind
from gradclip.monitor._row import snapshot


def numbers_of(source: Any) -> dict[str, AnyScalar]:
    """Return what a handle of `attach`, or a clipper, says of its last step.

    A clipper's decision is read, not its property ``skipped``: that one notes that the loop asked.
    """
    said = getattr(source, "decision", source)
    coefficient = said.coefficient
    max_norm = getattr(source, "threshold", None) if said is source else said.max_norm
    numbers = {
        "norm": said.norm,
        "coefficient": getattr(coefficient, "number", coefficient),
        "clipped": said.clipped,
        "skipped": said.skipped,
    }
    if max_norm is not None:
        of_the_user = said is source and max_norm is source.max_norm
        numbers["max_norm"] = snapshot(max_norm) if of_the_user else max_norm
    return numbers


def numbers_of_state(state: Any) -> dict[str, AnyScalar]:
    """Return what a state of optax says of its last step; it may be that of a chain.

    Raises
    ------
    TypeError
        If it holds no `ClipState`.
    ValueError
        If it holds several.
    """
    found = list(_states(state))
    if not found:
        raise TypeError(
            f"state is {kind(state)}, expected the ClipState of a transform of gradclip.backends.optax, or the state "
            "of a chain that holds one; call record() for anything else"
        )
    if len(found) > 1:
        raise ValueError(f"state holds {len(found)} states of clipping, expected one; pass one of them alone")
    (said,) = found
    coefficient = snapshot(said.coefficient)
    return {"norm": snapshot(said.norm), "coefficient": coefficient, "clipped": coefficient != 1}


def _states(state: Any) -> Iterator[Any]:
    """Yield the states of clipping in a state."""
    if all(hasattr(state, name) for name in ("norm", "coefficient", "clipped")):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _states(value)
    elif isinstance(state, Sequence) and not isinstance(state, str):
        for value in state:
            yield from _states(value)

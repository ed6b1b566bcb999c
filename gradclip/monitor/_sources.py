"""What a monitor reads of a handle, of a clipper and of a state of optax, by the names of attributes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradclip._namespace import namespace
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
        If it holds no state of clipping or of skipped steps.
    ValueError
        If it holds several.
    """
    said = _only(list(_states(state)))
    if said is None:
        raise TypeError(
            f"state is {kind(state)}, expected the ClipState of a transform of gradclip.backends.optax, a PolicyState, "
            "a SkipState, or the state of a chain that holds one; call record() for anything else"
        )
    return _of_state(said)


def _of_state(said: Any) -> dict[str, AnyScalar]:
    return _of_skips(said) if _skips(said) else _of_clips(said)


def _of_clips(said: Any) -> dict[str, AnyScalar]:
    coefficient = snapshot(said.coefficient)
    numbers = {"norm": snapshot(said.norm), "coefficient": coefficient, "clipped": coefficient != 1}
    if hasattr(said, "max_norm"):
        numbers["max_norm"] = snapshot(said.max_norm)
    return numbers


def _of_skips(said: Any) -> dict[str, AnyScalar]:
    """Return the numbers of a step; one that was not skipped may have been clipped by what was wrapped."""
    norm, max_norm, skipped = (snapshot(x) for x in (said.norm, said.max_norm, said.last_skipped))
    numbers = {"norm": norm, "max_norm": max_norm, "skipped": skipped}
    if (inner := _only(list(_states(said.inner_state)))) is None:
        return numbers
    instead = {**numbers, "coefficient": 1.0, "clipped": False}  # what `inner` says is of an earlier step then
    where = namespace([skipped]).where
    found = {name: where(skipped, instead[name], value) for name, value in _of_state(inner).items() if name != "norm"}
    return {**numbers, **found}


def _only(found: Sequence[Any]) -> Any:
    """Return the only state, or None if there is none."""
    if len(found) > 1:
        raise ValueError(f"state holds {len(found)} states of clipping, expected one; pass one of them alone")
    return found[0] if found else None


def _skips(state: Any) -> bool:
    return hasattr(state, "last_skipped")


def _states(state: Any) -> Iterator[Any]:
    """Yield the states of clipping and of skipped steps in a state, but not those inside of another one of them."""
    names = ("norm", "max_norm", "last_skipped") if _skips(state) else ("norm", "coefficient", "clipped")
    if all(hasattr(state, name) for name in names):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _states(value)
    elif isinstance(state, Sequence) and not isinstance(state, str):
        for value in state:
            yield from _states(value)

"""Calls with the wrong arguments: the error says what the function takes, and which function was probably meant."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def explained(*, optax: str = "", by_name: str = "") -> Callable[[Function], Function]:
    """Decorate a function whose calls people get wrong.

    Parameters
    ----------
    optax : str
        The call of Optax's that has the same name or does the same, without the gradients.
    by_name : str
        A call with those arguments by their names that people pass by position.
    """
    remedies = {}
    if optax:
        remedies["missing"] = f"for optax.chain(), pass gradclip.backends.optax.{optax}"
    remedies["too many"] = f"write {by_name}" if by_name else "pass what follows the * by name"

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError:
                _check_call(function, args, kwargs, remedies)
                raise  # it is about something else

        return cast("Function", call)

    return decorate


def _check_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], remedies: dict[str, str]
) -> None:
    """Raise TypeError if a function does not take these arguments."""
    takes = signature(function)
    try:
        takes.bind(*args, **kwargs)
    except TypeError as e:
        plain = [p.replace(annotation=Parameter.empty) for p in takes.parameters.values()]
        shown = takes.replace(parameters=plain, return_annotation=Parameter.empty)
        name = function.__name__
        remedy = next((text for start, text in remedies.items() if str(e).startswith(start)), "pass these")
        raise TypeError(f"{name}(): {e}; expected {name}{shown}; {remedy}") from None

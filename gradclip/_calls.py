"""Errors for calls with wrong arguments: they say what the function takes, and what was probably meant."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def explained(*, optax: str = "", by_name: str = "") -> Callable[[Function], Function]:
    """Decorate a function so that a call with wrong arguments raises a TypeError that says how to call it.

    Parameters
    ----------
    optax : str
        The call of optax's function that does the same, which takes no gradients: it is shown if arguments are missing.
    by_name : str
        A call that passes by name what people pass by position: it is shown if there are too many arguments.
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
                raise  # the arguments fit; the error is the function's own

        return cast("Function", call)

    return decorate


def _check_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], remedies: dict[str, str]
) -> None:
    """Raise TypeError if these arguments do not fit a function's signature."""
    takes = signature(function)
    try:
        takes.bind(*args, **kwargs)
    except TypeError as e:
        plain = [p.replace(annotation=Parameter.empty) for p in takes.parameters.values()]
        shown = takes.replace(parameters=plain, return_annotation=Parameter.empty)
        name = function.__name__
        remedy = next((text for start, text in remedies.items() if str(e).startswith(start)), "pass these")
        raise TypeError(f"{name}(): {e}; expected {name}{shown}; {remedy}") from None

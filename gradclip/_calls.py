"""Calls with the wrong arguments: the error says what the function takes, and which function was probably meant."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def explained(
    *, too_few: str = "pass it", too_many: str = "pass what follows the * by name"
) -> Callable[[Function], Function]:
    """Decorate a function whose calls people get wrong.

    Parameters
    ----------
    too_few, too_many : str
        The remedies where an argument is missing, and where there is one more than the function takes.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError:
                _check_call(function, args, kwargs, too_few, too_many)
                raise  # it is about something else

        return cast("Function", call)

    return decorate


def _check_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], too_few: str, too_many: str
) -> None:
    """Raise TypeError if a function does not take these arguments."""
    takes = signature(function)
    try:
        takes.bind(*args, **kwargs)
    except TypeError as e:
        plain = [p.replace(annotation=Parameter.empty) for p in takes.parameters.values()]
        shown = takes.replace(parameters=plain, return_annotation=Parameter.empty)
        name = function.__name__
        remedies = {"missing": too_few, "too many": too_many}
        remedy = next(
            (text for start, text in remedies.items() if str(e).startswith(start)), "pass these by their names"
        )
        raise TypeError(f"{name}(): {e}; expected {name}{shown}; {remedy}") from None

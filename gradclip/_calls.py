"""What all public functions have in common: errors for wrong arguments, and no floating-point warnings."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, cleandoc, signature
from typing import Any, TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

quiet = np.errstate(all="ignore")
"""Decorator: suppresses NumPy's floating-point warnings, because gradients may overflow, underflow or be NaN."""


def as_function(method: Function) -> Function:
    """Return a public function for a method that is bound to an instance of `gradclip._containers.Containers`.

    The function has no ``self``. It belongs to the module that the attribute ``module`` of the instance names, where
    ``pickle`` finds it. Phrases of its docstring are replaced as the attribute ``words`` says.
    """
    containers: Any = cast("Any", method).__self__  # it is bound
    function = _explaining(method)
    function.__module__, function.__qualname__ = containers.module, method.__name__
    function.__doc__ = cleandoc(method.__doc__ or "")
    for core, adapter in containers.words.items():
        function.__doc__ = function.__doc__.replace(core, adapter)
    return function


def remedies(*, optax: str = "", by_name: str = "") -> Callable[[Function], Function]:
    """Decorate a method so that errors for calls with wrong arguments give a remedy; `as_function` raises them.

    Parameters
    ----------
    optax : str
        The call of optax's function that does the same, which takes no gradients: it is shown if arguments are missing.
    by_name : str
        A call that passes by name what people pass by position: it is shown if there are too many arguments.
    """
    found = {}
    if optax:
        found["missing"] = f"for optax.chain(), pass gradclip.backends.optax.{optax}"
    found["too many"] = f"write {by_name}" if by_name else "pass what follows the * by name"

    def decorate(function: Function) -> Function:
        vars(function)["remedies"] = found
        return function

    return decorate


def explained(*, optax: str = "", by_name: str = "") -> Callable[[Function], Function]:
    """Decorate a function so that a call with wrong arguments raises a TypeError with a remedy, as for `remedies`."""
    marked = remedies(optax=optax, by_name=by_name)
    return lambda function: _explaining(marked(function))


def _explaining(function: Function) -> Function:
    """Return a function that calls another one; wrong arguments raise a TypeError that says how to call it."""

    @wraps(function)
    @quiet
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            _check_call(function, args, kwargs)
            raise  # the arguments fit; the error is the function's own

    return cast("Function", call)


def _check_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise TypeError if these arguments do not fit a function's signature."""
    takes = signature(function)
    try:
        takes.bind(*args, **kwargs)
    except TypeError as e:
        plain = [p.replace(annotation=Parameter.empty) for p in takes.parameters.values()]
        shown = takes.replace(parameters=plain, return_annotation=Parameter.empty)
        name, said = function.__name__, getattr(function, "remedies", {})
        remedy = next((text for start, text in said.items() if str(e).startswith(start)), "pass these")
        raise TypeError(f"{name}(): {e}; expected {name}{shown}; {remedy}") from None

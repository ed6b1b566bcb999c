"""Words for error messages: the article of a type's name, and a value in a few characters."""

import reprlib

_AN = (
    "a",
    "e",
    "i",
    "o",
    "mp",
    "nd",
    "sgd",
    "unin",
)  # "an mpf", "an ndarray", "an uninitialized one"; "a uint8", "a union"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def a(noun: str) -> str:
    """Return a noun with its article: ``"an ndarray"``, ``"a list"``."""
    return f"{'an' if noun.lower().startswith(_AN) else 'a'} {noun}"


def kind(value: object) -> str:
    """Return what a value is: ``"an int"``, ``"None"``; with its module, if it is no builtin: ``"a numpy.ndarray"``."""
    if value is None:
        return "None"
    cls = type(value)
    return a(cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}")


def short(value: object) -> str:
    """Return the ``repr`` of a value, cut where it is long."""
    return _SHORT.repr(value)

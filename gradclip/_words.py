"""Text for error messages: a noun with its article, and the short form of a value."""

import reprlib

_AN = ("a", "e", "i", "o", "mp", "nd", "sgd", "unin")
"""How nouns begin that take "an": an mpf, an ndarray, an uninitialized tensor; but a uint8, a union."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def a(noun: str) -> str:
    """Return a noun with its article: ``"an ndarray"``, ``"a list"``."""
    return f"{'an' if noun.lower().startswith(_AN) else 'a'} {noun}"


def kind(value: object) -> str:
    """Return a value's type with an article, and with its module if it has one: ``"an int"``, ``"a numpy.ndarray"``."""
    if value is None:
        return "None"
    cls = type(value)
    return a(cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}")


def short(value: object) -> str:
    """Return the ``repr`` of a value, shortened to about 60 characters."""
    return _SHORT.repr(value)

"""The targets of a run: those that the options name, or all known namespaces that can be imported."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest

import gradclip
from gradclip.conformance import adapters, frameworks
from gradclip.conformance.targets import Target


class Choice(NamedTuple):
    """The targets of a run, and the known namespaces that cannot be tested, each with the reason."""

    targets: list[Target]
    missing: dict[str, str]


def choose(namespaces: Sequence[str] = (), modules: Sequence[str] = ()) -> Choice:
    """Return the targets for the options ``--namespace`` and ``--adapter``.

    Raises
    ------
    pytest.UsageError
        If one of them cannot be imported, or no array of it can be made.
    """
    if not namespaces and not modules:
        return _known()
    targets: list[Target] = []
    for module in modules:
        targets += _named(f"--adapter {module}", partial(adapters.targets_of, module, namespaces))
    for name in [] if modules else namespaces:
        targets += _named(f"--namespace {name}", partial(frameworks.targets_of, name, gradclip))
    return Choice(targets, {})


def of_name(name: str, namespaces: Sequence[str] = (), modules: Sequence[str] = ()) -> Target:
    """Return the target of this name among those for the options."""
    return next(t for t in choose(namespaces, modules).targets if t.name == name)


def _known() -> Choice:
    targets: list[Target] = []
    missing = {}
    for name in frameworks.KNOWN:
        try:
            targets += frameworks.targets_of(name, gradclip)
        except Exception as e:  # not installed, or broken: test_00 skips and gives the reason
            missing[name] = f"{type(e).__name__}: {e}".splitlines()[0]
    return Choice(targets, missing)


def _named(option: str, find: Callable[[], list[Target]]) -> list[Target]:
    """Return the targets of an option, or raise a UsageError that says what is wrong with it."""
    try:
        return find()
    except pytest.UsageError:
        raise
    except Exception as e:  # whatever the import or the first array says
        raise pytest.UsageError(f"{option}: {type(e).__name__}: {e}") from e

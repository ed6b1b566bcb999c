"""Which targets a run is on: those that were named, or all known namespaces that can be imported."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest

import gradclip
from gradclip.conformance import adapters, frameworks
from gradclip.conformance.targets import Target


class Choice(NamedTuple):
    """The targets of a run, and the namespaces of the default list that are not here, each with the reason."""

    targets: list[Target]
    missing: dict[str, str]


def choose(namespaces: Sequence[str] = (), modules: Sequence[str] = ()) -> Choice:
    """Return the targets for the options ``--namespace`` and ``--adapter``.

    Raises
    ------
    pytest.UsageError
        If one that was named cannot be imported, or makes no arrays.
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
        except Exception as e:  # absent, or broken in whatever way: test_00 skips and tells
            missing[name] = f"{type(e).__name__}: {e}".splitlines()[0]
    return Choice(targets, missing)


def _named(option: str, find: Callable[[], list[Target]]) -> list[Target]:
    """Return the targets of an option, or tell what is wrong with it."""
    try:
        return find()
    except pytest.UsageError:
        raise
    except Exception as e:  # whatever the import or the first array says
        raise pytest.UsageError(f"{option}: {type(e).__name__}: {e}") from e

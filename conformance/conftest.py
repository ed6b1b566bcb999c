"""Runs the contract on namespaces and adapters: ``pytest conformance --namespace dask.array``. See README.md."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import gradclip
from conformance import adapters, excuses, frameworks, make_golden, selection
from conformance.targets import DTYPES, Target
from conformance.values import is_complex

HERE = Path(__file__).parent
CHOSEN = pytest.StashKey[list[Target]]()
MISSING = pytest.StashKey[dict[str, str]]()
KINDS = {
    "dtype": DTYPES,
    "real_dtype": tuple(d for d in DTYPES if not is_complex(d)),
    "complex_dtype": tuple(d for d in DTYPES if is_complex(d)),
    "half_dtype": ("float16", "bfloat16"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradclip", "the contract of gradclip")
    group.addoption("--namespace", action="append", default=[], help="run on this importable namespace (repeatable)")
    group.addoption("--adapter", action="append", default=[], help="run this module's functions (repeatable)")
    group.addoption("--cases", type=int, metavar="N", help="run at most N cases of each test on each target")
    group.addoption("--every", action="store_true", help="run every case on targets that run few cases by default")
    group.addoption("--xfails", action="append", default=[], help="a further xfail file (repeatable)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*traits): runs on targets with these traits; `!` before one: without it")
    if config.getoption("namespace") or config.getoption("adapter"):
        _choose(config)  # at once, so that a name that is wrong is told as one


def _choose(config: pytest.Config) -> list[Target]:
    """Return the targets of this run: those that were named, or all known namespaces that can be imported."""
    if CHOSEN in config.stash:
        return config.stash[CHOSEN]
    names, modules = config.getoption("namespace"), config.getoption("adapter")
    config.stash[MISSING] = missing = {}
    chosen: list[Target] = []
    for module in modules:
        chosen += _named(f"--adapter {module}", lambda m=module: adapters.targets_of(m, names))
    for name in [] if modules else names:
        chosen += _named(f"--namespace {name}", lambda n=name: frameworks.targets_of(n, gradclip))
    for name in [] if names or modules else frameworks.KNOWN:
        try:
            chosen += frameworks.targets_of(name, gradclip)
        except Exception as e:  # absent, or broken in whatever way: test_00 skips and tells
            missing[name] = f"{type(e).__name__}: {e}".splitlines()[0]
    config.stash[CHOSEN] = chosen
    return chosen


def _named(option: str, find: Callable[[], list[Target]]) -> list[Target]:
    """Return the targets of an option, or tell what is wrong with it."""
    try:
        return find()
    except pytest.UsageError:
        raise
    except Exception as e:  # whatever the import or the first array says
        raise pytest.UsageError(f"{option}: {type(e).__name__}: {e}") from e


@pytest.fixture
def missing(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the namespaces of the default list that are not here, each with what its import said."""
    return request.config.stash[MISSING]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = _choose(metafunc.config)
    if "target" not in metafunc.fixturenames:
        return
    needs = [trait for mark in metafunc.definition.iter_markers("needs") for trait in mark.args]
    fit = [t for t in chosen if all((n.lstrip("!") in t.traits) is not n.startswith("!") for n in needs)]
    kind = next((kind for kind in KINDS if kind in metafunc.fixturenames), None)
    if "vector" in metafunc.fixturenames:
        vectors = [(t, v) for t in fit for v in make_golden.vectors() if v["dtype"] in t.dtypes]
        names = [f"{t.name}-{v['function']}-{v['name']}".replace(" ", "_") for t, v in vectors]
        metafunc.parametrize(("target", "vector"), vectors, ids=names)
        return
    if kind is None:
        metafunc.parametrize("target", fit, ids=lambda t: t.name)
        return
    pairs = [(t, dtype) for t in fit for dtype in KINDS[kind] if dtype in t.dtypes]
    metafunc.parametrize(("target", kind), pairs, ids=[f"{t.name}-{dtype}" for t, dtype in pairs])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    target = _target_of(item)
    if target is None:
        return (yield)
    with target.active():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the excused tests, refuse excuses for tests that there are not, and thin out cases where that is agreed."""
    ours = [(item, target) for item in items if (target := _target_of(item)) is not None]
    further = [line for name in config.getoption("xfails") for line in excuses.read(Path(name))]
    read = {name: [*excuses.of_target(name), *further] for name in {target.name for _, target in ours}}
    for item, target in ours:
        excuses.mark(item, excuses.short_name(item, target.name), read[target.name])
    if _is_whole(config, [item for item, _ in ours]):
        excuses.refuse_unused(line for lines in read.values() for line in lines)
    cases, every = config.getoption("cases"), config.getoption("every")
    kept = {item for item, _ in ours} if every else selection.thinned(ours, cases)
    kept |= {item for item in items if not _has_target(item)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_report_header(config: pytest.Config) -> str:
    chosen = _choose(config)
    missing = "".join(f"; without {name} ({why})" for name, why in config.stash[MISSING].items())
    return f"contract on: {', '.join(t.name for t in chosen)}{missing}"


def _has_target(item: pytest.Item) -> bool:
    """Whether a test is one of ours that runs on a target, be it on one that there is or on none."""
    return HERE in item.path.parents and "target" in getattr(getattr(item, "callspec", None), "params", ())


def _target_of(item: pytest.Item) -> Target | None:
    target = item.callspec.params["target"] if _has_target(item) else None  # type: ignore[attr-defined]
    return target if hasattr(target, "read") else None  # pytest puts a mark of its own where there is none


def _is_whole(config: pytest.Config, items: list[pytest.Item]) -> bool:
    """Whether all files of the suite were collected, and nothing was selected within them."""
    selected = any(config.getoption(option, None) for option in ("keyword", "markexpr", "deselect", "lf"))
    files = {item.path for item in items}
    return not selected and not any("::" in arg for arg in config.args) and set(HERE.glob("test_[0-9]*.py")) <= files

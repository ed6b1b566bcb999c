"""Runs the contract on namespaces and adapters: ``pytest conformance --namespace dask.array``. See README.md.

It changes only tests of this suite and no others.
"""

from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gradclip.conformance import excuses, golden, report, selection
from gradclip.conformance.choice import Choice, choose
from gradclip.conformance.notes import hand_over, is_worker, notes, take_over
from gradclip.conformance.targets import DTYPES, Target
from gradclip.conformance.values import is_complex

HERE = Path(__file__).resolve().parent
UNUSED = "xfail lines that match no test; remove or correct them:"
CHOICE = pytest.StashKey[Choice]()
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
    group.addoption("--report", metavar="FILE.md", help="write a table of clauses and targets, with all reasons")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*traits): runs on targets with these traits; `!` before one: without it")
    if config.getoption("namespace") or config.getoption("adapter"):
        _choice(config)  # here, so that a wrong name is a usage error
    report.start(config, lambda: _choice(config).targets)


def _choice(config: pytest.Config) -> Choice:
    if CHOICE not in config.stash:
        config.stash[CHOICE] = choose(config.getoption("namespace"), config.getoption("adapter"))
    return config.stash[CHOICE]


@pytest.fixture
def missing(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the known namespaces that cannot be tested, each with the error of its import."""
    return _choice(request.config).missing


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" not in metafunc.fixturenames or not _is_ours(metafunc.definition.path):
        return
    fit = _fitting(metafunc)
    kind = next((kind for kind in KINDS if kind in metafunc.fixturenames), None)
    if "vector" in metafunc.fixturenames:
        vectors = [(t, v) for t in fit for v in golden.vectors() if v["dtype"] in t.dtypes]
        names = [f"{t.name}-{v['function']}-{v['name']}".replace(" ", "_") for t, v in vectors]
        metafunc.parametrize(("target", "vector"), vectors, ids=names)
        return
    if kind is None:
        metafunc.parametrize("target", fit, ids=lambda t: t.name)
        return
    pairs = [(t, dtype) for t in fit for dtype in KINDS[kind] if dtype in t.dtypes]
    metafunc.parametrize(("target", kind), pairs, ids=[f"{t.name}-{dtype}" for t, dtype in pairs])


def _fitting(metafunc: pytest.Metafunc) -> list[Target]:
    """Return the targets that have the traits which a test needs. The others are noted for the report."""
    needs = [trait for mark in metafunc.definition.iter_markers("needs") for trait in mark.args]
    fit = []
    for target in _choice(metafunc.config).targets:
        lacking = [n for n in needs if (n.lstrip("!") in target.traits) is n.startswith("!")]
        if lacking:
            test = f"{metafunc.definition.path.name}::{metafunc.definition.name}"
            report.leave_out(metafunc.config, test, target.name, lacking)
        else:
            fit.append(target)
    return fit


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    target = _target_of(item)
    if target is None:
        return (yield)
    with target.active():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark excused tests, refuse excuses that match no test, and deselect cases beyond a target's number of cases."""
    ours = [(item, target) for item in items if (target := _target_of(item)) is not None]
    further = [line for name in config.getoption("xfails") for line in excuses.read(Path(name))]
    read = {name: [*excuses.of_target(name), *further] for name in {target.name for _, target in ours}}
    for item, target in ours:
        excuses.mark(item, excuses.short_name(item.path.name, item.name, target.name), read[target.name])
    if _is_whole(config, [item for item, _ in ours]):
        _refuse(config, excuses.unused(line for lines in read.values() for line in lines), items)
    cases, every = config.getoption("cases"), config.getoption("every")
    kept = {item for item, _ in ours} if every else selection.thinned(ours, cases)
    kept |= {item for item in items if not _has_target(item)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _refuse(config: pytest.Config, unused: list[str], items: list[pytest.Item]) -> None:
    """Raise for xfail lines that match no test. A worker of pytest-xdist notes them instead, and runs nothing."""
    if unused and not is_worker(config):
        raise pytest.UsageError("\n".join([UNUSED, *unused]))
    if unused:
        notes(config, UNUSED).update((line,) for line in unused)
        items.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session.config):
        hand_over(session.config)
    elif notes(session.config, UNUSED):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    take_over(node.config, node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in sorted(notes(config, UNUSED)):
        terminalreporter.write_line(f"ERROR: {UNUSED} {line[0]}", red=True)


def pytest_report_header(config: pytest.Config) -> str:
    chosen = _choice(config)
    missing = "".join(f"; without {name} ({why})" for name, why in chosen.missing.items())
    return f"contract on: {', '.join(t.name for t in chosen.targets)}{missing}"


@cache
def _is_ours(path: Path) -> bool:
    """Whether a file belongs to the suite, also if it was found through a link."""
    return HERE in path.resolve().parents


def _has_target(item: pytest.Item) -> bool:
    """Whether a test of the suite takes a target, also if there is no target for it."""
    return "target" in getattr(getattr(item, "callspec", None), "params", ()) and _is_ours(item.path)


def _target_of(item: pytest.Item) -> Target | None:
    target = item.callspec.params["target"] if _has_target(item) else None  # type: ignore[attr-defined]
    return target if hasattr(target, "read") else None  # without a target, pytest passes a marker object


def _is_whole(config: pytest.Config, items: list[pytest.Item]) -> bool:
    """Whether all files of the suite were collected, and nothing was selected within them."""
    selected = any(config.getoption(option, None) for option in ("keyword", "markexpr", "deselect", "lf"))
    files = {item.path.name for item in items}
    all_files = {path.name for path in HERE.glob("test_[0-9]*.py")}
    return not selected and not any("::" in arg for arg in config.args) and all_files <= files

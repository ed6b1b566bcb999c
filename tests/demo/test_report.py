"""Table, conclusion, progress and figure of runs that are made up here."""

import math
from io import StringIO

import pytest
from rich.console import Console

from demo.clipping import ByGlobalNorm, ByValue, NoClipping
from demo.plot import save_figure
from demo.progress import watching
from demo.report import conclusion, show_report
from demo.style import number
from demo.train import Run

RULES = (NoClipping(), ByGlobalNorm(1.0), ByValue(0.01))


@pytest.fixture
def runs():
    dead = Run(RULES[0], 1500, [4.6, 4.5, 9e9], [0.5, 3e7, math.inf], 0, math.nan, "The ", "The ")
    lived = [
        Run(rule, 1500, [4.6 - i / 500 for i in range(1500)], [0.5] * 1500, clipped, None, "The ", "The [b]end\n of it")
        for rule, clipped in zip(RULES[1:], (33, 1500), strict=True)
    ]
    return [dead, *lived]


def console(environment=None, **options):
    """Return a console that writes into a string and knows nothing of the terminal that the tests run in."""
    return Console(file=StringIO(), width=80, _environ=environment or {}, **options)


def printed(console):
    return console.file.getvalue()


def test_the_table_says_all_that_was_measured(runs):
    page = console()
    show_report(page, runs)
    lines = {line[:17].strip(): line[17:].split() for line in printed(page).splitlines()}
    assert lines["steps survived"] == ["3", "of", "1,500", "1,500", "of", "1,500", "1,500", "of", "1,500"]
    assert lines["steps clipped"] == ["none", "33", "(2%)", "1,500", "(100%)"]
    assert lines["largest norm"] == ["inf", "0.500", "0.500"]
    assert lines["final loss"] == ["nan", "1.75", "1.75"]
    assert lines["it writes"][0] == "nothing:"
    assert "[b]end of it" in printed(page)  # the network's brackets are not markup
    assert max(map(len, printed(page).splitlines())) <= 80


def test_the_conclusion_follows_from_the_runs(runs):
    dead, by_norm, _ = runs
    assert "lost: its loss is nan at step 4." in conclusion(runs)
    assert "Clipped by global norm, in 33 steps of 1,500, it came to 1.75." in conclusion(runs)
    by_norm.fatal = math.inf
    assert "Clipped by global norm it was lost as well, at step 1,501." in conclusion(runs)
    dead.fatal = None
    assert "Without clipping the network survived" in conclusion(runs)
    assert "Clipped by global norm it was lost, at step 1,501." in conclusion(runs)


def test_one_step_is_singular():
    runs = [Run(rule, 1, [4.6], [0.5], clipped=clipped) for rule, clipped in zip(RULES, (0, 1, 0), strict=True)]
    assert "Clipped by global norm, in 1 step of 1, it came to 4.60." in conclusion(runs)
    assert "Clipped by value, in 0 steps of 1, it came to 4.60." in conclusion(runs)


def test_a_log_gets_a_few_plain_lines(runs):
    page = console()
    with watching(page, RULES, 1500) as watch:
        for run in runs:
            losses, sample, fatal, run.sample, run.fatal = run.losses, run.sample, run.fatal, "", None
            for survived in range(1, len(losses) + 1):
                run.losses = losses[:survived]
                watch(run)
            run.sample, run.fatal = sample, fatal
            watch(run)
    lines = printed(page).splitlines()
    assert " ".join(lines[0].split()) == "no clipping step 3 of 1,500 died at step 4 (loss nan)"
    assert len(lines) == 11
    assert not any("\x1b" in line for line in lines)


def test_a_terminal_gets_bars(runs):
    page = console({"TERM": "xterm"}, force_terminal=True)
    with watching(page, RULES, 1500) as watch:
        for run in runs:
            watch(run)
    shown = printed(page)
    assert "died at step 4 (loss nan)" in shown
    assert "1500/1500" in shown
    assert "loss 1.60" in shown


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".PNG"])
def test_the_figure_is_what_its_suffix_says(tmp_path, runs, suffix):
    path = tmp_path / f"figure{suffix}"
    save_figure(path, runs, 100)
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix.lower()]
    assert path.read_bytes().startswith(start)


def test_the_figure_names_runs_threshold_and_death(tmp_path, runs):
    path = tmp_path / "figure.svg"
    save_figure(path, runs, 100)
    figure = path.read_text(encoding="utf-8")
    words = ("no clipping", "by global norm", "by value", "max_norm = 1", "loss is nan at step 4", "training step")
    assert [word for word in words if word not in figure] == []


def test_a_figure_of_one_step_is_drawn(tmp_path):
    runs = [Run(rule, 1, [4.6], [0.5]) for rule in RULES]
    runs[0] = Run(RULES[0], 1, [], [], fatal=math.nan)
    save_figure(tmp_path / "figure.png", runs, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4734, "0.473"), (1.5, "1.50"), (12.34, "12.3"), (123.4, "123."), (8123.0, "8.1e+03"), (math.inf, "inf")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text

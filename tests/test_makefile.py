"""``make`` alone says what there is to make."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("arguments", [[], ["help"]])
def test_make_lists_every_target_and_makes_nothing(arguments):
    # The tests are often run by make itself: what it hands down would change the output of this one.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    shown = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    phony, *_ = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line.split(maxsplit=2) for line in shown.splitlines()]
    assert [name for _, name, _ in lines] == phony.split()
    assert all(command == "make" and text for command, _, text in lines)


def test_what_takes_long_or_installs_much_says_so():
    lines = re.findall(r"^([a-z]+):.*  ## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    silent = {name for name, text in lines if not re.search(r"\(.*(\d s|min|hour).*\)$", text)}
    assert silent == {"help", "gpu", "clean"}


def test_arguments_reach_every_run_of_pytest():
    runs = re.findall(r"^\t.*\$\(PYTEST\).*$", (ROOT / "Makefile").read_text().replace("\\\n", ""), re.MULTILINE)
    assert len(runs) == 5
    assert all(re.search(r"\$\((ARGS|SELECTED)\)$", run) for run in runs)

"""What a type checker sees of users' calls: what goes in comes out, and wrong arguments are errors."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed: see the extra types")
def test_the_types_of_users_calls():
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "tests/typed_calls.py"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr

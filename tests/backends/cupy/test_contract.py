"""The contract on the adapter, with the kernels compiled for the CPU: every clause, without a GPU."""

import subprocess
import sys
from pathlib import Path

from tests.backends.cupy.emulated import needs_compiler

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent


@needs_compiler
def test_the_contract_holds():
    adapter = ["--adapter", "tests.backends.cupy.on_cpu", "--namespace", "numpy", "--xfails", str(HERE / "xfails.txt")]
    command = [sys.executable, "-m", "pytest", "conformance", "-q", "-p", "no:cacheprovider", *adapter]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

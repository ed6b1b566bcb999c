"""Runs the GPU tests and the contract on both adapters with this machine's pytest, one process per core.

Run as ``python -m benchmarks.gpu.tests``.
"""

import os
import subprocess
import sys
from importlib.util import find_spec

NEEDED = ("pytest", "mpmath", "ml_dtypes", "hypothesis", "array_api_strict")
"""What the tests import in addition to the project and its frameworks."""

RUNS = {
    "cupy": (
        ["tests/backends/cupy/test_gpu.py"],
        ["conformance", "--adapter", "gradclip.backends.cupy"],
    ),
    "torch": (
        ["tests/backends/torch/test_gpu.py"],
        ["conformance", "--adapter", "gradclip.backends.torch", "-k", "cuda"],
    ),
}
"""The arguments of pytest for each framework."""

PROCESSES = 8
"""The most processes: each has a context and kernels in the GPU's memory."""


def main() -> int:
    """Run everything for the frameworks that are installed, and return 0 if all of it ran and passed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"GPU tests: not run, for they need {', '.join(missing)}; pip install {' '.join(missing)}")
        return 1
    base = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir=.", "--import-mode=importlib", "-q", "-ra"]
    if find_spec("xdist"):
        base += ["-n", str(min(PROCESSES, os.cpu_count() or 1))]
    failed = 0
    for framework, runs in RUNS.items():
        for run in runs if find_spec(framework) else ():
            print("pytest", *run, flush=True)
            failed += subprocess.run([*base, *run], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())

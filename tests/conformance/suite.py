"""Runs the suite in a process of its own, as a third party would."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "conformance"


def run(
    *arguments: str, files: Sequence[str] = (), cwd: Path = ROOT, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Return what pytest says of files of the suite, by default of all; modules are also found in ``path``."""
    roots = os.pathsep.join(str(p) for p in (ROOT, path) if p is not None)
    chosen = [str(SUITE / file) for file in files] or [str(SUITE)]
    command = [sys.executable, "-m", "pytest", *chosen, "-q", "-p", "no:cacheprovider", "--tb=no", *arguments]
    environment = {**os.environ, "PYTHONPATH": roots}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

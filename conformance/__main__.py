"""Runs the installed suite: ``python -m gradclip.conformance --namespace your.namespace --report contract.md``.

It runs pytest without the configuration of the current folder, and takes every option of pytest.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("hypothesis", "mpmath", "pytest")


def main(arguments: Sequence[str]) -> int:
    """Run the suite with these options and return pytest's exit status."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f'the suite needs {", ".join(missing)}: pip install "gradclip[conformance]"', file=sys.stderr)
        return 1
    import pytest

    suite = str(Path(__file__).parent)
    alone = ["-c", os.devnull, "--rootdir=.", "--import-mode=importlib", "-p", "no:cacheprovider"]
    return pytest.main([suite, *alone, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

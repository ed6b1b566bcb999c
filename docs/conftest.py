"""Where the examples of the documentation run, and which are left out."""

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore = ["conf.py", "gallery", "reference", "_build", "integrations"]  # the last have tests of their own


def _has_a_gpu() -> bool:
    if find_spec("cupy") is None:
        return False
    import cupy

    try:
        return bool(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return False


if not _has_a_gpu():
    collect_ignore.append("cupy.md")  # its example needs a GPU


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an example write files where they are in nobody's way."""
    monkeypatch.chdir(tmp_path)

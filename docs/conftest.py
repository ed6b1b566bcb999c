"""What the tests of the documentation leave out."""

from importlib.util import find_spec

collect_ignore = ["conf.py", "gallery", "reference", "_build"]


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

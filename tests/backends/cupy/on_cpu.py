"""The adapter with emulated kernels and NumPy's arrays, for the conformance suite.

``pytest conformance --adapter tests.backends.cupy.on_cpu --namespace numpy``
"""

import tempfile
from pathlib import Path

from gradclip.backends import cupy as adapter
from gradclip.backends.cupy import *  # noqa: F403  # all its names
from gradclip.backends.cupy import _tree
from tests.backends.cupy.emulated import EmulatedRuntime, NumpySource

__all__ = adapter.__all__

_folder = tempfile.TemporaryDirectory()
_emulated = EmulatedRuntime(Path(_folder.name), block=32)
_tree.runtime = lambda: _emulated  # type: ignore[assignment]
_tree.Source = NumpySource

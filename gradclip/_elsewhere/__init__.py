"""Errors for names that are not in ``gradclip`` but in an adapter, and for frameworks that are not installed.

The other modules of this folder are found as ``gradclip.torch`` and so on. Importing one raises an error.
"""

import sys
from types import FrameType, TracebackType

FUNCTIONS = {
    "torch": (
        "BackwardClipping", "Clipping", "Explanation", "attach", "clip_grad_norm", "clip_grad_norm_",
        "clip_grad_value_", "clip_grads_with_norm_", "clip_in_backward", "explain", "get_total_norm", "gpu_kernels",
        "grad_norms",
    ),
    "optax": (
        "ClipState", "PolicyState", "SkipState", "clip", "clip_by_block_rms", "per_example_global_norm_clip",
        "per_example_layer_norm_clip", "skip_steps",
    ),
    "jax": (),
    "cupy": ("gpu_kernels",),
}  # fmt: skip
"""For each adapter, the public names that the core does not have."""

TRAINERS = {
    "accelerate": ("ClippingAccelerator",),
    "ignite": ("GradClip",),
    "keras": ("ClipLog", "clipped"),
    "lightning": ("GradClip",),
    "sb3": ("GradClip",),
    "skorch": ("GradClip",),
    "transformers": ("GradClipCallback",),
}
"""For each module for a trainer, its public names."""


def missing(name: str, caller: FrameType) -> Exception:
    """Return the error for a name that ``gradclip`` does not have; it says where the name is.

    The statement ``from gradclip import name`` drops the text of an AttributeError, so it gets an ImportError. Other
    accesses get an AttributeError, which ``hasattr`` requires.
    """
    where = _place(name)
    if _imports(caller):
        return ImportError(f"cannot import name {name!r} from 'gradclip'{where}", name="gradclip")
    return AttributeError(f"module 'gradclip' has no attribute {name!r}{where}", name=name, obj=sys.modules["gradclip"])


def refuse_import(module: str) -> None:
    """Raise ModuleNotFoundError for ``gradclip.torch``, whose module is ``gradclip.backends.torch``."""
    package, _, name = module.rpartition(".")
    if package == "gradclip":
        raise ModuleNotFoundError(f"No module named {module!r}{_place(name)}", name=module)


class Needs:
    """A context for the imports of an adapter: if its framework is not installed, the error says how to install it.

    Parameters
    ----------
    adapter : str
        The name of the adapter, and of the extra that installs its framework.
    packages : str
        The frameworks that the adapter imports.
    install : str, optional
        What to pass to pip in place of an extra.
    """

    def __init__(self, adapter: str, *packages: str, install: str | None = None) -> None:
        self._adapter, self._packages = adapter, packages
        self._install = install or f'"gradclip[{adapter}]"'

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, ModuleNotFoundError) and error.name in self._packages:  # not an import within a framework
            raise ModuleNotFoundError(
                f"gradclip.backends.{self._adapter} needs {error.name}, which is not installed; "
                f"pip install {self._install}",
                name=error.name,
            ) from error


def _place(name: str) -> str:
    everywhere = FUNCTIONS | TRAINERS
    if name in everywhere or name == "backends":
        adapter = "torch" if name == "backends" else name
        return f"; adapters are in gradclip.backends, write: import gradclip.backends.{adapter}"
    plain = {"clip_grad_norm": "clip_grad_norm_"}.get(name, name)
    found = [adapter for adapter, names in everywhere.items() if name in names]
    ways = " or ".join(f"from gradclip.backends.{adapter} import {plain}" for adapter in found)
    return f"; it is in an adapter, write: {ways}" if ways else ""


def _imports(caller: FrameType) -> bool:
    """Whether a frame is at a statement ``from ... import``."""
    from opcode import opmap

    return caller.f_code.co_code[caller.f_lasti] == opmap.get("IMPORT_FROM")

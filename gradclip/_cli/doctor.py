"""``gradclip doctor``: versions, adapters, and which kernels are used on which device."""

import platform
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib import import_module, metadata
from typing import TypeAlias

from rich.console import Console
from rich.text import Text

from gradclip import _native
from gradclip._version import __version__
from gradclip.backends import ADAPTERS

Finding: TypeAlias = Callable[[], str]
"""A function that returns what was found, in a few words. If it raises, the error is printed."""

PACKAGES = ("numpy", "array_api_compat", "optree", "torch", "triton", "jax", "optax", "cupy", "dask")
"""Import names of the packages that gradclip needs, then of the frameworks."""


def show_findings(console: Console) -> None:
    """Print one finding per line; errors are red on a terminal."""
    for title, findings in sections().items():
        console.print(Text(title, style="bold"))
        for name, finding in findings.items():
            console.print(_line(name, finding), soft_wrap=True)


def sections() -> Mapping[str, Mapping[str, Finding]]:
    """Return the findings of each section, in the order of the output."""
    return {
        "Versions": {
            "gradclip": lambda: __version__,
            "Python": lambda: f"{platform.python_version()}, {platform.system()} {platform.machine()}",
            **{name: partial(_version, name) for name in PACKAGES},
        },
        "Adapters": {f"gradclip.backends.{name}": partial(_import, f"gradclip.backends.{name}") for name in ADAPTERS},
        "Devices": {
            "CPU": lambda: f"gradclip's kernels in C: {_native.status()}",
            "torch": _torch_devices,
            "jax": _jax_devices,
            "cupy": _cupy_devices,
        },
    }


def _line(name: str, finding: Finding) -> Text:
    try:
        said, style = finding(), ""
    except Exception as error:
        said, style = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}", "red"
    return Text(f"  {name:<24} ").append(" ".join(said.split()), style)


def _version(package: str) -> str:
    """Return a package's version without importing it. Several distributions may contain it, as for CuPy."""
    found = sorted(set(_distributions().get(package, ())))
    return ", ".join(_named(package, distribution) for distribution in found) or "not installed"


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()  # cached, because it reads every installed package's list of files


def _named(package: str, distribution: str) -> str:
    version = metadata.version(distribution)
    return version if distribution.replace("-", "_") == package else f"{version} ({distribution})"


def _import(module: str) -> str:
    import_module(module)
    return "can be imported"


def _torch_devices() -> str:
    import torch

    from gradclip.backends.torch import gpu_kernels

    count = torch.cuda.device_count()
    return (
        _listed(f"{torch.cuda.get_device_name(i)}, with {gpu_kernels(f'cuda:{i}')}" for i in range(count))
        or "CPU; no GPU found"
    )


def _jax_devices() -> str:
    import jax

    return _listed(f"{device.device_kind} ({device.platform})" for device in jax.devices())


def _cupy_devices() -> str:
    from gradclip.backends.cupy import gpu_kernels
    from gradclip.backends.cupy._runtime import runtime

    gpus = runtime().cupy.cuda.runtime
    names = [gpus.getDeviceProperties(i)["name"].decode() for i in range(gpus.getDeviceCount())]
    return _listed(f"{name}, with {gpu_kernels(i)}" for i, name in enumerate(names))


def _listed(devices: Iterable[str]) -> str:
    return "; ".join(devices)

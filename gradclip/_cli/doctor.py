"""``gradclip doctor``: versions, adapters, which kernels are used on which device, and whether results are right."""

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import import_module, metadata
from typing import Final, Literal, TypeAlias

from rich.console import Console
from rich.text import Text

from gradclip import _native
from gradclip._cli.selfcheck import CHECKS, AbsentError, check
from gradclip._version import __version__
from gradclip.backends import ADAPTERS

Finding: TypeAlias = Callable[[], str]
"""A function that returns what was found, in a few words. If it raises, the error is printed."""

PACKAGES = ("numpy", "array_api_compat", "optree", "torch", "triton", "jax", "optax", "cupy", "dask")
"""Import names of the packages that gradclip needs, then of the frameworks."""


State: TypeAlias = Literal["ok", "absent", "failed"]

NOT_INSTALLED: Final = "not installed"

STYLES: Final = {"ok": "", "absent": "dim", "failed": "red"}


@dataclass(frozen=True)
class Found:
    """What was found, in a few words, and whether it is "ok", "absent" (not installed, no such device), or "failed"."""

    text: str
    state: State


def show_findings(console: Console) -> bool:
    """Print one finding per line; failures are red on a terminal. Return whether nothing failed."""
    well = True
    for title, findings in sections().items():
        console.print(Text(title, style="bold"))
        for name, finding in findings.items():
            found = look(finding)
            well &= found.state != "failed"
            console.print(Text(f"  {name:<24} ").append(found.text, STYLES[found.state]), soft_wrap=True)
    return well


def findings_as_json() -> tuple[dict[str, object], bool]:
    """Return all findings by section and name, and whether nothing failed."""
    found = {
        title.lower(): {name: asdict(look(finding)) for name, finding in findings.items()}
        for title, findings in sections().items()
    }
    well = all(one["state"] != "failed" for findings in found.values() for one in findings.values())
    return {"ok": well, **found}, well


def look(finding: Finding) -> Found:
    """Return what a finding says, or its error."""
    state: State = "ok"
    try:
        said = finding()
    except (ModuleNotFoundError, AbsentError) as error:
        said, state = str(error), "absent"
    except ImportError as error:
        said, state = str(error), "failed"
    except Exception as error:
        said, state = f"{type(error).__name__}: {error}", "failed"
    text = " ".join(said.split())
    return Found(text, "absent" if text == NOT_INSTALLED else state)


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
        "Self-check": {name: partial(check, name) for name in CHECKS},
    }


def _version(package: str) -> str:
    """Return a package's version without importing it. Several distributions may contain it, as for CuPy."""
    found = sorted(set(_distributions().get(package, ())))
    return ", ".join(_named(package, distribution) for distribution in found) or NOT_INSTALLED


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

    try:
        gpus = runtime().cupy.cuda.runtime
    except RuntimeError as error:
        raise AbsentError(str(error)) from error
    names = [gpus.getDeviceProperties(i)["name"].decode() for i in range(gpus.getDeviceCount())]
    return _listed(f"{name}, with {gpu_kernels(i)}" for i, name in enumerate(names))


def _listed(devices: Iterable[str]) -> str:
    return "; ".join(devices)

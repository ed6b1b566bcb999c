"""The command: checks, then rows, a table and one JSON file."""

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import compact
from benchmarks.gpu import checks, rows
from benchmarks.machine import commit
from benchmarks.sets import GPT2_SMALL

OUT = Path(__file__).parents[1] / "out" / "gpu.json"


def main() -> int:
    """Run everything that this machine can, and return the exit status: 1 if a check failed, 2 if there is no GPU."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    options.add_argument("--checks", action="store_true", help="the checks only, without timings")
    options.add_argument("--out", type=Path, default=OUT, help="the JSON file")
    given = options.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory to the others
    cupy, torch, jax = _cupy(), _torch(), _jax()
    if cupy is None and torch is None:
        print("no GPU: neither CuPy nor PyTorch finds one; expected an NVIDIA GPU with either. Nothing was measured.")
        return 2
    results = {
        **(checks.run(checks.cupy_checks(cupy)) if cupy else {}),
        **(checks.run(checks.torch_checks(torch)) if torch else {}),
    }
    failed = sum(result != "passed" for result in results.values())
    print(f"{len(results) - failed} checks passed, {failed} failed")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": _machine(cupy, torch), "checks": _counted(results), "rows": []}
    for row in [] if given.checks else _measured(cupy, torch, jax):
        report["rows"].append(asdict(row) | {"share": row.share})
        compact.write(given.out, report)  # write now, because later work may not end
    compact.write(given.out, report)
    print(f"written to {given.out}")
    return 1 if failed else 0


def _counted(results: Mapping[str, str]) -> dict[str, Any]:
    """Return how many checks passed, and the errors of the others."""
    failed = {name: result for name, result in results.items() if result != "passed"}
    return {"passed": len(results) - len(failed), "failed": failed}


def _measured(cupy: Any, torch: Any, jax: Any) -> Iterator[rows.Row]:
    shapes, copy = GPT2_SMALL.shapes, 0.0
    print(f"{'gradients':14}{'dtype':10}{'clipped':9}{'contender':28}{'device µs':>12}{'host µs':>10}{'of copy':>9}")
    sources = [rows.cupy_rows(cupy, shapes)] if cupy else []
    sources += [rows.torch_rows(torch, shapes)] if torch else []
    for source in sources:
        for row in source:
            copy = row.copy
            yield _shown(row)
    if jax is not None and copy:
        free = (cupy.cuda.runtime.memGetInfo() if cupy else torch.cuda.mem_get_info())[0]
        yield from map(_shown, rows.jax_rows(jax, shapes, free // 2, copy))


def _shown(row: rows.Row) -> rows.Row:
    kind = f"{row.gradients:14}{row.dtype:10}{'yes' if row.clipped else 'no':9}{row.contender:28}"
    print(f"{kind}{row.timing.device * 1e6:12.1f}{row.timing.host * 1e6:10.1f}{row.share:9.1%}", flush=True)
    return row


def _machine(cupy: Any, torch: Any) -> dict[str, object]:
    names = ("gradclip", "numpy", "torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "jax", "optax")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if cupy:
        gpu = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        versions["CUDA driver"] = cupy.cuda.runtime.driverGetVersion()
    else:
        gpu = torch.cuda.get_device_name(0)
    return {
        "gpu": gpu,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": versions,
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }


def _cupy() -> Any:
    try:
        cupy = importlib.import_module("cupy")
        return cupy if cupy.cuda.runtime.getDeviceCount() else None
    except Exception as e:
        print(f"without CuPy: {type(e).__name__}: {e}")
        return None


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError as e:
        print(f"without PyTorch: {e}")
        return None
    if not torch.cuda.is_available():
        print("without PyTorch: it finds no GPU")
        return None
    return torch


def _jax() -> Any:
    try:
        jax = importlib.import_module("jax")
        importlib.import_module("optax")
        return jax if jax.default_backend() == "gpu" else None
    except Exception as e:
        print(f"without JAX: {type(e).__name__}: {e}")
        return None


if __name__ == "__main__":
    sys.exit(main())

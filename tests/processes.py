"""Starts processes that work together on this machine, with a time limit, and ends them all."""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

PATIENCE_S = 60
"""How long the others may still run when one has ended: after a failure, most wait for it in vain."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def run_ranks(module: str, world: int, folder: Path, *, killed: int = 0, seconds: float = 300) -> list[str]:
    """Run a module in each of several processes, as torchrun would; return what each wrote, or fail with all of it.

    The last ``killed`` of them have to end by SIGKILL, which they send to themselves. All are forks of one process,
    which has imported PyTorch and has done nothing else: else each would take seconds for that.
    """
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    files = [folder / f"rank{rank}.txt" for rank in range(world)]
    ranks = [
        _FORKS.Process(
            target=_run_rank, args=(module, file, {"RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo", **address})
        )
        for rank, file in enumerate(files)
    ]
    codes = _codes(ranks, seconds)
    said = [file.read_text() if file.exists() else "" for file in files]
    want = [0] * (world - killed) + [-signal.SIGKILL] * killed
    assert codes == want, f"{codes}\n\n" + "\n\n".join(said)
    return said


_FORKS: Any = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
_FORKS.set_forkserver_preload(["torch._dynamo", "tests.backends.torch.ops.on_ranks"])


def _run_rank(module: str, file: Path, variables: dict[str, str]) -> None:
    """Run a module as the main one of this process, with further environment variables; write to a file."""
    with file.open("w") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    os.environ.update(variables)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def run_one(command: Sequence[str], seconds: float = 300, **variables: str) -> str:
    """Run one command, which may start others; return what it wrote, or fail with it."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _environment(**variables: str) -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def _codes(processes: Sequence[Any], seconds: float) -> list[int | None]:
    """Start processes and return the exit status of each; None for those that had to be ended."""
    try:
        for process in processes:
            process.start()
        last = time.monotonic() + seconds
        while any(process.exitcode is None for process in processes) and time.monotonic() < last:
            if any(process.exitcode is not None for process in processes):
                last = min(last, time.monotonic() + PATIENCE_S)
            time.sleep(0.05)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()

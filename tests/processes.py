"""Starts processes that work together on this machine, with a time limit, and ends them all."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

PATIENCE_S = 60
"""How long the others may still run when one has ended: after a failure, most wait for it in vain."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def run_ranks(module: str, world: int, folder: Path, *, killed: int = 0, seconds: float = 300) -> list[str]:
    """Run a module in each of several processes, as torchrun would; return what each wrote, or fail with all of it.

    The last ``killed`` of them have to end by SIGKILL, which they send to themselves.
    """
    port = str(free_port())
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", module]
    outputs = [(folder / f"rank{rank}.txt").open("w+") for rank in range(world)]
    ranks = [
        subprocess.Popen(
            command, cwd=ROOT, env=_environment(RANK=str(rank), **address), stdout=output, stderr=subprocess.STDOUT
        )
        for rank, output in enumerate(outputs)
    ]
    codes = _codes(ranks, seconds)
    said = []
    for output in outputs:
        output.seek(0)
        said.append(output.read())
        output.close()
    want = [0] * (world - killed) + [-signal.SIGKILL] * killed
    assert codes == want, f"{codes}\n\n" + "\n\n".join(said)
    return said


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


def _codes(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> list[int | None]:
    """Return the exit status of each; None for those that had to be ended."""
    last = time.monotonic() + seconds
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < last:
            if any(process.poll() is not None for process in processes):
                last = min(last, time.monotonic() + PATIENCE_S)
            time.sleep(0.05)
        return [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()

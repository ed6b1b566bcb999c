"""The memory that a call allocates in addition to its gradients: the peak of a new process."""

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import frameworks, least
from benchmarks.row import Row
from benchmarks.sets import TINY

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Memory:
    """The peak of the bytes that each contender of a row allocated, and the nbytes of the gradients."""

    row: Row
    gradients: int
    extra: Mapping[str, int]


def measure(row: Row, *, shrink: bool) -> Memory:
    """Return what ours and the peers allocate, each in a new process; with ``shrink``, only ours."""
    roles = {"ours"} if shrink else {"ours", "peer"}
    names = [c.name for c in row.build(TINY).contenders if c.role in roles and c.name != least.NAME]
    extra = {name: _in_process(row.name, name, shrink) for name in names}
    return Memory(row, row.gradients.size * row.itemsize, extra)


def _in_process(row: str, contender: str, shrink: bool) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", row, contender, *(["--shrink"] if shrink else [])]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {contender} failed:\n{done.stderr}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def peak_bytes() -> int:
    """Return the largest resident size that this process has had.

    On Linux, ``ru_maxrss`` includes the peak of the parent process, which has large gradients. So there the kernel's
    figure for this process's address space is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main(name: str, contender: str, *options: str) -> None:
    row = frameworks.find(name)
    for small in (True, False):  # the small set loads libraries and starts threads
        setup = row.build(TINY if small else row.gradients.shrunk() if options else row.gradients)
        call = next(c.call for c in setup.contenders if c.name == contender)
        before = peak_bytes()
        result = call(setup.schedule.first)
        setup.wait()
        extra = peak_bytes() - before
        del result
    print(json.dumps(extra))


if __name__ == "__main__":
    _main(*sys.argv[1:])

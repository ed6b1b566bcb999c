"""Rows of two ranks: DTensors and plain gradients of a group, on two processes that this one tells what to do.

PyTorch's first call with DTensors takes seconds for 1,000 and minutes for 5,000, in each pair of processes. So the rows
of one size share a pair, and 5,000 are compared with PyTorch by ``python -m benchmarks.rank_costs`` alone.
"""

import select
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO

import torch

from benchmarks import frameworks, sets
from benchmarks.accuracy import Implementation
from benchmarks.exact import relative_error, wide_norm
from benchmarks.row import CLIPPED, UNCLIPPED, Budget, Contender, Row, Setup, global_schedule
from benchmarks.sets import GradientSet
from tests.processes import free_port

PEER = "torch.nn.utils.clip_grad_norm_"
_OURS, _MISSING = frameworks.adapter("torch")
if not torch.distributed.is_available():
    _MISSING = "PyTorch was built without distributed"
SIZES = (100, 1000)
"""How many parameters there are in rows with PyTorch's function."""
MANY = 5000
"""How many there are in rows of ours alone, and in a row of ``rank_costs`` with PyTorch's function."""
_SECONDS = 600.0
"""How long both ranks may take for a call."""


class Ranks:
    """Two processes with the same gradients, split between them or one half each; they end with this object."""

    def __init__(self, gradients: GradientSet, kind: str) -> None:
        command = [sys.executable, "-m", "benchmarks.ranks", str(free_port()), kind, str(len(gradients.shapes))]
        pipe = subprocess.PIPE
        self._ranks = [
            subprocess.Popen([*command, str(rank)], stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[1])
            for rank in range(2)
        ]
        weakref.finalize(self, _end, self._ranks)

    def call(self, what: str, most: float = 0.0) -> tuple[float, float]:
        """Have both do something; return the norm before and after, as the first rank knows them."""
        before, after, _ = self.measured(what, most)
        return before, after

    def measured(self, what: str, most: float, seconds: float = _SECONDS) -> tuple[float, float, float]:
        """Return also the seconds of CPU time of both ranks together; raise TimeoutError if a rank takes longer."""
        for rank in self._ranks:
            _pipe(rank.stdin).write(f"{what} {most!r}\n")
            _pipe(rank.stdin).flush()
        end = time.monotonic() + seconds
        lines = [_line(_pipe(rank.stdout), end) for rank in self._ranks]  # of both, so that they stay together
        numbers = [list(map(float, line.split())) for line in lines]
        return numbers[0][0], numbers[0][1], sum(each[2] for each in numbers)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _line(pipe: IO[str], end: float) -> str:
    """Return the next line of a pipe that is empty now; raise TimeoutError if there is none at the time ``end``."""
    ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
    if not ready:
        raise TimeoutError("a rank has not answered in time")
    return pipe.readline()


def _end(ranks: list["subprocess.Popen[str]"]) -> None:
    for rank in ranks:
        rank.kill()
        with rank:  # waits, and closes the pipes
            pass


@lru_cache(maxsize=1)
def _pair(number: int, kind: str) -> Ranks:
    """Return the two processes of rows that come one after the other."""
    return Ranks(GradientSet("", ((64,),) * number), kind)


def row(number: int, kind: str, case: str, *budgets: Budget) -> Row:
    """Return the row of clipping ``number`` tensors on two ranks; ``kind`` is "DTensor" or "plain, group="."""
    gradients = GradientSet(f"{number:,} x 64", ((64,),) * number)

    def build(chosen: GradientSet) -> Setup:
        ranks = _pair(len(chosen.shapes), kind)
        norm = wide_norm(sets.values(chosen, "float32"))

        def check(_: object, most: float) -> Mapping[str, float]:
            before, after = ranks.call("check")
            return {"norm": relative_error(before, norm), "result": relative_error(after, min(norm, most))}

        contenders = [Contender("gradclip.backends.torch", "ours", lambda most: ranks.call("ours", most))]
        if kind == "DTensor" and number in SIZES:  # PyTorch has nothing for plain ones
            contenders.append(Contender(PEER, "peer", lambda most: ranks.call("torch", most)))
        return Setup(contenders, global_schedule(norm, case), check, lambda: ranks.call("restore") and None)

    passes = (2, 1) if case == CLIPPED else (1, 0)
    return Row("ranks", f"clip_grad_norm_, {kind}", gradients, "float32", case, build, passes, budgets, _MISSING)


def rows() -> Iterable[Row]:
    """Return the rows of two ranks."""
    for number in SIZES:
        yield row(number, "DTensor", UNCLIPPED, *([Budget(PEER, 3.0)] if number == 1000 else []))
        yield row(number, "DTensor", CLIPPED)
        yield row(number, "plain, group=", UNCLIPPED)
    yield row(MANY, "DTensor", UNCLIPPED)
    yield row(MANY, "plain, group=", UNCLIPPED)


def implementations() -> Iterable[Implementation]:
    """Return none: accuracy does not depend on ranks."""
    return ()


def versions() -> Mapping[str, str]:
    """Return how many threads each rank has."""
    return {"threads of a rank": "1"} if _MISSING is None else {}

"""Rows of two ranks: DTensors and plain gradients of a group, on two processes that this one tells what to do."""

import subprocess
import sys
import weakref
from collections.abc import Iterable, Mapping
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
SIZES = (100, 1000, 5000)


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
        for rank in self._ranks:
            _pipe(rank.stdin).write(f"{what} {most!r}\n")
            _pipe(rank.stdin).flush()
        lines = [_pipe(rank.stdout).readline() for rank in self._ranks]  # both, so that they stay together
        before, after = map(float, lines[0].split())
        return before, after


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _end(ranks: list["subprocess.Popen[str]"]) -> None:
    for rank in ranks:
        rank.kill()
        with rank:  # waits, and closes the pipes
            pass


def row(number: int, kind: str, case: str, *budgets: Budget) -> Row:
    """Return the row of clipping ``number`` tensors on two ranks; ``kind`` is "DTensor" or "plain, group="."""
    gradients = GradientSet(f"{number:,} x 64", ((64,),) * number)

    def build(chosen: GradientSet) -> Setup:
        ranks = Ranks(chosen, kind)
        norm = wide_norm(sets.values(chosen, "float32"))

        def check(_: object, most: float) -> Mapping[str, float]:
            before, after = ranks.call("check")
            return {"norm": relative_error(before, norm), "result": relative_error(after, min(norm, most))}

        contenders = [Contender("gradclip.backends.torch", "ours", lambda most: ranks.call("ours", most))]
        if kind == "DTensor":  # PyTorch has nothing for plain ones
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


def implementations() -> Iterable[Implementation]:
    """Return none: accuracy does not depend on ranks."""
    return ()


def versions() -> Mapping[str, str]:
    """Return how many threads each rank has."""
    return {"threads of a rank": "1"} if _MISSING is None else {}

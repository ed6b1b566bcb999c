"""The cost model of docs/parallelism.md, checked by counting the messages of simulated collectives."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import gradclip
from tests import exact
from tests.parallelism.recipe import DOCS

LATENCY_US, GB_PER_S, ROW_BYTES = 5.0, 25.0, 80
SHAPES = ((2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16), (32, 32, 32), (8, 125, 100))


class Network:
    """Counts the steps in which messages follow each other, and the bytes that each rank gets."""

    def __init__(self, ranks: int) -> None:
        self.steps, self.bytes = 0, [0] * ranks

    def step(self, received: dict[int, int]) -> None:
        self.steps += 1
        for rank, size in received.items():
            self.bytes[rank] += size


Gather = Callable[[Network, Sequence[Sequence[int]], list[np.ndarray]], list[np.ndarray]]


def ring(network: Network, groups: Sequence[Sequence[int]], rows: list[np.ndarray]) -> list[np.ndarray]:
    """Return what each rank has after an all-gather in each group: each passes on what it got last."""
    size = len(groups[0])
    found = [{rank: rows[rank]} for rank in range(len(rows))]
    last = {rank: rank for group in groups for rank in group}
    for _ in range(size - 1):
        sent = {group[i]: last[group[i - 1]] for group in groups for i in range(size)}
        network.step({to: rows[what].nbytes for to, what in sent.items()})
        for to, what in sent.items():
            found[to][what] = rows[what]
        last = sent
    return [np.stack([have[rank] for rank in sorted(have)]) for have in found]


def doubling(network: Network, groups: Sequence[Sequence[int]], rows: list[np.ndarray]) -> list[np.ndarray]:
    """Return the same after a tree: each step doubles what a rank has."""
    size = len(groups[0])
    found = [{rank: rows[rank]} for rank in range(len(rows))]
    for k in range(math.ceil(math.log2(size))):
        before = [dict(have) for have in found]
        received = {}
        for group in groups:
            for i, to in enumerate(group):
                new = {x: v for x, v in before[group[i - 2**k]].items() if x not in before[to]}
                found[to].update(new)
                received[to] = sum(v.nbytes for v in new.values())
        network.step(received)
    return [np.stack([have[rank] for rank in sorted(have)]) for have in found]


def along(shape: Sequence[int], dim: int) -> list[list[int]]:
    """Return the groups of ranks that differ along one dimension of a mesh."""
    grid = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), dim, -1)
    return grid.reshape(-1, shape[dim]).tolist()


def merged(partials: list[gradclip.NormPartial], gathered: list[np.ndarray]) -> list[gradclip.NormPartial]:
    """Return what each rank's `merged` gives for what it gathered."""
    return [partial.merged(lambda _, rows=rows: rows) for partial, rows in zip(partials, gathered, strict=True)]


def arrays(partials: list[gradclip.NormPartial]) -> list[np.ndarray]:
    return [partial.to_array() for partial in partials]


@pytest.mark.parametrize("shape", [(2, 2, 2), (4, 2, 3), (3, 5)])
@pytest.mark.parametrize("gather", [ring, doubling])
def test_the_messages_are_those_of_the_model(shape, gather: Gather):
    ranks = math.prod(shape)
    values = [np.random.default_rng(rank).standard_normal(5) * 10.0**rank for rank in range(ranks)]
    alone = list(map(gradclip.norm_partial, values))
    size = alone[0].to_array().nbytes

    at_once = Network(ranks)
    flat = merged(alone, gather(at_once, [list(range(ranks))], arrays(alone)))
    assert at_once.steps == (ranks - 1 if gather is ring else math.ceil(math.log2(ranks)))
    assert at_once.bytes == [(ranks - 1) * size] * ranks

    by_dimension, partials = Network(ranks), alone
    for dim in range(len(shape)):
        partials = merged(partials, gather(by_dimension, along(shape, dim), arrays(partials)))
    assert by_dimension.steps == sum(n - 1 if gather is ring else math.ceil(math.log2(n)) for n in shape)
    assert by_dimension.bytes == [sum(n - 1 for n in shape) * size] * ranks

    want = float(exact.norm(np.concatenate(values).tolist(), 2.0))
    for found in (flat, partials):
        assert len({float(partial.norm()) for partial in found}) == 1, "the same bits on all ranks"
        assert float(found[0].norm()) == pytest.approx(want, rel=1e-14)


def test_the_table_is_what_the_model_gives():
    lines = DOCS.read_text().splitlines()
    for shape in SHAPES:
        assert line(shape) in lines, line(shape)


def line(shape: Sequence[int]) -> str:
    """Return a line of the table: one ring over all, one along each dimension, and a tree all-reduce of one number."""
    n = math.prod(shape)
    steps = n - 1, sum(m - 1 for m in shape), 2 * math.ceil(math.log2(n))
    sizes = (n - 1) * ROW_BYTES, sum(m - 1 for m in shape) * ROW_BYTES
    times = [steps[i] * LATENCY_US + size / GB_PER_S / 1e3 for i, size in enumerate((*sizes, 0))]
    cells = [f"{n:,}", "×".join(map(str, shape)), *map(_time, times[:2]), *map(_bytes, sizes), _time(times[2])]
    return f"| {' | '.join(cells)} |"


def _time(us: float) -> str:
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.1f} ms"


def _bytes(size: float) -> str:
    return f"{size:,} B" if size < 10_000 else f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"

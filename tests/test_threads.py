"""Work that is shared between threads: every part is done once, whatever happens."""

import threading

import numpy as np
import pytest

import gradclip
from gradclip import _numpy, _threads
from gradclip._threads import cut, share


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_every_part_is_done_once(threads, count):
    done = np.zeros(count, int)

    def work(begin, end):
        done[begin:end] += 1

    share(work, count, threads)
    assert (done == 1).all()


def test_where_threads_cannot_be_started_their_parts_are_done_here(monkeypatch):
    done, start, allowed = np.zeros(100, int), threading.Thread.start, [True, False, False]

    def limited(thread):
        if not allowed.pop(0):
            raise RuntimeError("can't start new thread")
        start(thread)

    def work(begin, end):
        done[begin:end] += 1

    monkeypatch.setattr(threading.Thread, "start", limited)
    share(work, 100, 4)
    assert (done == 1).all()


@pytest.mark.parametrize("bad", [0, 99])
def test_an_error_in_any_part_is_raised(bad):
    def work(begin, end):
        if begin <= bad < end:
            raise ValueError(str(bad))

    with pytest.raises(ValueError, match=str(bad)):
        share(work, 100, 3)


def test_cutting():
    assert list(cut([3, 0, 4, 2], 0, 9)) == [(0, 0, 3), (2, 0, 4), (3, 0, 2)]
    assert list(cut([3, 0, 4, 2], 2, 5)) == [(0, 2, 3), (2, 0, 2)]
    assert list(cut([], 0, 0)) == []


@pytest.mark.parametrize(("wanted", "found"), [("1", 1), ("2, 1", 2), ("many", 3), ("", 3), ("99", 3), ("0", 1)])
def test_threads_are_those_that_the_process_may_use(monkeypatch, wanted, found):
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    monkeypatch.setattr(_threads.os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert _threads.threads.__wrapped__() == found


@pytest.mark.parametrize("clip", [gradclip.clip_by_global_norm_, gradclip.clip_by_norm_])
def test_clipping_by_threads_has_the_bits_of_one(monkeypatch, clip):
    rng = np.random.default_rng(0)
    leaves = [
        rng.standard_normal(shape).astype(dtype) for dtype in "fd" for shape in [(700,), (300, 7), (5,), (0,), ()]
    ]
    leaves.append(np.asfortranarray(rng.standard_normal((30, 40))))
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(_numpy, "threads", lambda threads=threads: threads)
        for module, name in ((_numpy, "SHARED"), (_numpy, "_LARGE")):
            monkeypatch.setattr(module, name, 1)
        mine = [x.copy("K") for x in leaves]
        clip(mine, 0.5)
        found.append(mine)
    for one, other, before in zip(*found, leaves, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not before.size or not np.array_equal(one, before)

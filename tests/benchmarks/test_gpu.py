"""The GPU benchmarks where there is no GPU: they say so, and their own arithmetic is right."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as main
from benchmarks.gpu import checks, clock, rows

ROOT = Path(__file__).parents[2]


class Clock:
    """A device that is the host, where time passes in `sleep` only."""

    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds=1.0):
        self.now += seconds

    def event(self):
        return self.now

    def wait(self):
        pass

    busy = wait

    @staticmethod
    def seconds(start, stop):
        return stop - start


@pytest.fixture
def device(monkeypatch):
    device = Clock()
    monkeypatch.setattr(clock.time, "perf_counter", device.event)
    return device


def test_without_a_gpu_the_command_says_so(tmp_path):
    code = "import sys; sys.modules['cupy'] = None; import torch; torch.cuda.is_available = lambda: False\n"
    code += "import benchmarks.gpu.__main__ as m; sys.argv = ['gpu']; sys.exit(m.main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "no GPU: neither CuPy nor PyTorch finds one" in done.stdout
    assert "Nothing was measured" in done.stdout


def test_rows(device):
    grads, calls = [1.0], []

    def works(given, limit):
        calls.append((given[0], limit))
        given[0] = math.nan  # what no other contender may meet
        device.sleep()

    def reset():
        grads[0] = 1.0

    def fails(given, limit):
        raise RuntimeError("out of memory")

    contenders = {"works": works, "fails": fails, "also": works}
    found = list(rows._rows("x", device, "set", "float32", [(10, 10)], contenders, grads, reset, 1e9))
    assert [(row.contender, row.clipped, row.floor) for row in found] == [
        ("works", False, 400),
        ("also", False, 400),
        ("works", True, 1200),
        ("also", True, 1200),
    ]
    assert set(calls) == {(1.0, 1e9), (1.0, 1.0)}, "the same gradients in every call, not clipped and clipped"
    assert found[0].share == pytest.approx(400 / found[0].timing.device / 1e9)


def test_sets_that_do_not_fit_are_left_out():
    titles = [(title, dtype) for title, dtype, _ in rows.sets([(768, 768)] * 4, 5 << 30)]
    assert ("1 GB", "float32") in titles
    assert ("8 GB", "float32") not in titles
    for title, dtype, shapes in rows.sets([(1,)], 1 << 40):
        if title == "8 GB":
            assert rows.size(shapes) * {"float32": 4, "bfloat16": 2}[dtype] == 8 << 30


def test_the_clock_measures_the_call(device):
    found = clock.measure(device, {"sleeps": device.sleep, "does not": lambda: None}, repeats=3)
    assert found == {"sleeps": clock.Timing(1.0, 1.0), "does not": clock.Timing(0.0, 0.0)}


def test_what_comes_before_a_call_is_not_timed(device):
    found = clock.measure(device, {"call": lambda: None}, before=device.sleep, repeats=3)
    assert found == {"call": clock.Timing(0.0, 0.0)}


def test_checks_are_counted():
    assert main._counted({"a": "passed", "b": "failed", "c": "passed"}) == {"passed": 2, "failed": {"b": "failed"}}


def test_a_check_that_raises_is_a_check_that_failed(capsys):
    results = checks.run(iter([("good", lambda: True), ("bad", lambda: False), ("worse", lambda: 1 / 0)]))
    assert results["good"] == "passed"
    assert results["bad"] == "failed"
    assert results["worse"] == "failed: ZeroDivisionError: division by zero"
    assert "worse" in capsys.readouterr().out

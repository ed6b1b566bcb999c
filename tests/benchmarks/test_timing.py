"""The arithmetic of ratios and budgets, and the order of the calls. No speed is asserted anywhere."""

import itertools

import pytest

from benchmarks import sets, timing
from benchmarks.row import CLIPPED, UNCLIPPED, Budget, Contender, Row, Schedule, Setup, global_schedule
from benchmarks.timing import MOST_CALLS, Plan, Result, Spread, Timing

PLAN = Plan(rounds=4, sample_seconds=1e-12)


def make_row(contenders, *, log=None, errors=None, budgets=(), schedule=None) -> Row:
    def build(_):
        return Setup(
            contenders,
            schedule or Schedule(1.0),
            lambda answer, threshold: (errors or {}).get(answer, {"norm": 0.0}),
            restore=lambda: log.append("restore") if log is not None else None,
        )

    return Row("NumPy", "clip", sets.TINY, "float32", CLIPPED, build, budgets=budgets)


def logging_contenders(log):
    def call(name):
        return lambda threshold: log.append((name, threshold)) or name

    roles = {"gradclip": "ours", "a": "peer", "b": "peer", "slow floor": "floor"}
    return [Contender(name, role, call(name)) for name, role in roles.items()]


def test_ratio_is_taken_round_by_round():
    ratio = timing.ratio([2.0, 40.0, 6.0], [1.0, 10.0, 2.0])  # the second round was slow for both
    assert ratio == Spread(median=3.0, low=2.5, high=3.5)


def test_spread_of_one_sample_is_that_sample():
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("budget", "ratio", "met"),
    [
        (Budget("peer", 1.8), 1.81, True),
        (Budget("peer", 1.8), 1.79, False),
        (Budget("floor", 1.2, "within"), 1 / 1.19, True),
        (Budget("floor", 1.2, "within"), 1 / 1.21, False),
    ],
)
def test_budgets_are_judged_by_the_median(budget, ratio, met):
    one = Spread(1.0, 1.0, 1.0)
    timings = [
        Timing("gradclip", "ours", one, one, 1, {}),
        Timing("peer", "peer", one, Spread(ratio, 0.0, 9.0), 1, {}),
        Timing("np.dot", "floor", one, Spread(ratio, 0.0, 9.0), 1, {}),
    ]
    (verdict,) = Result(make_row([], budgets=(budget,)), timings, 3).verdicts
    assert verdict.met is met
    assert verdict.reached == ratio


def test_every_sample_starts_from_restored_gradients_and_all_take_turns():
    log = []
    result = timing.measure(make_row(logging_contenders(log), log=log), PLAN)
    timed = [entry for entry in log if entry != "restore"][-4 * 4 :]
    rounds = [{name for name, _ in timed[at : at + 4]} for at in range(0, 16, 4)]
    assert rounds == [{"gradclip", "a", "b", "slow floor"}] * 4
    assert log[-32::2] == ["restore"] * 16
    assert [t.name for t in result.timings] == ["gradclip", "a", "b", "slow floor"]
    assert result.rounds == 4
    assert result.ours.speedup == Spread(1.0, 1.0, 1.0)


def test_of_several_floors_the_fastest_counts(monkeypatch):
    now = [0]

    def takes(nanoseconds):
        def work(_):
            now[0] += nanoseconds

        return work

    monkeypatch.setattr(timing, "perf_counter_ns", lambda: now[0])
    contenders = [Contender("gradclip", "ours", takes(1))]
    contenders += [Contender(f"floor {ns}", "floor", takes(ns)) for ns in (100_000, 1)]
    result = timing.measure(make_row(contenders), PLAN)
    assert result.floor is not None
    assert result.floor.name == "floor 1"
    assert len(result.timings) == 2


def test_our_own_wrong_answer_is_refused_and_a_peers_is_kept():
    log = []
    row = make_row(logging_contenders(log), errors={"a": {"norm": 0.5}})
    assert timing.measure(row, PLAN).peers[0].errors == {"norm": 0.5}
    for wrong in (1e-5, float("nan")):
        with pytest.raises(timing.WrongAnswerError, match="norm is off by"):
            timing.measure(make_row(logging_contenders(log), errors={"gradclip": {"norm": wrong}}), PLAN)


def test_clipped_thresholds_fall_at_every_call_and_never_near_underflow():
    thresholds = global_schedule(norm=1.0, case=CLIPPED).thresholds(MOST_CALLS)
    assert thresholds[0] < 1.0
    assert all(b < 0.99 * a for a, b in itertools.pairwise(thresholds))
    assert thresholds[-1] > 1e-5
    assert set(global_schedule(norm=1.0, case=UNCLIPPED).thresholds(3)) == {10.0}


def test_short_work_is_called_more_than_once_in_a_sample():
    calls = []
    row = make_row([Contender("gradclip", "ours", calls.append)], schedule=Schedule(1.0, 0.5))
    assert timing.measure(row, Plan(rounds=1, sample_seconds=1e9)).ours.calls == MOST_CALLS
    assert calls[-2] == 2 * calls[-1]

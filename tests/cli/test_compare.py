"""``gradclip compare``: each policy is replayed as it would have been applied."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gradclip._cli.replay import policies_for, replay
from gradclip.policies import AutoClip
from tests.cli.histories import run, write


def replays(history, max_norm=1.0):
    done = []
    found = replay(history, policies_for(history, max_norm), done.append)
    assert sum(done) == len(found) * history.norm.size
    return {one.name: one for one in found}


def test_a_fixed_threshold_clips_what_is_above_it_and_keeps_the_rest():
    history = run()
    fixed = replays(history)["Fixed(1)"]
    np.testing.assert_array_equal(fixed.clipped, history.norm > 1)
    np.testing.assert_array_equal(fixed.after, np.where(history.norm > 1, 1.0, history.norm))
    assert not fixed.skipped.any()


def test_a_policy_has_the_thresholds_that_it_would_have_had_in_training():
    history = run(200)
    policy, state, limits = AutoClip(), AutoClip().init(0.0), []
    for norm in history.norm.tolist():
        limit, state = policy.update(state, norm)
        limits.append(float(limit))
    np.testing.assert_allclose(replays(history)["AutoClip()"].max_norm, limits, rtol=1e-12)


def test_skipped_steps_have_no_norm_and_nan_is_skipped():
    history = run()
    skipping = replays(history)["SkipStep(sigma=6)"]
    assert not skipping.clipped.any()
    assert skipping.skipped[~np.isfinite(history.norm)].all()
    assert (skipping.after[skipping.skipped] == 0).all()
    kept = ~skipping.skipped
    assert (history.norm[kept] <= skipping.max_norm[kept]).all()


def test_policies_of_parameters_need_norms_of_parameters(gradclip, tmp_path):
    history = run()
    assert {"AdaGC()", "EmaClip(1.1)"} <= replays(history).keys()
    plain = run(parameters=False)
    assert not {"AdaGC()", "EmaClip(1.1)"} & replays(plain).keys()
    code, output, _ = gradclip("compare", write(plain, tmp_path / "log.jsonl"))
    assert code == 0
    assert "AdaGC and EmaClip need norms of parameters, which this log lacks." in output


def test_the_table_fits_a_narrow_terminal(gradclip, tmp_path, monkeypatch):
    path = write(run(), tmp_path / "log.jsonl")
    monkeypatch.setenv("COLUMNS", "60")
    code, output, errors = gradclip("compare", path, "--max-norm", "1")
    assert (code, errors) == (0, "")
    assert "…" not in output
    rows = {line.split()[0]: line for line in output.splitlines() if "%" in line}
    assert rows.keys() == replays(run()).keys()
    assert max(map(len, rows.values())) <= 60


@pytest.mark.parametrize("columns", [20, 40])
def test_in_a_very_narrow_terminal_each_number_has_a_line(gradclip, tmp_path, monkeypatch, columns):
    path = write(run(), tmp_path / "log.jsonl")
    monkeypatch.setenv("COLUMNS", "100")
    wide = gradclip("compare", path)[1]
    monkeypatch.setenv("COLUMNS", str(columns))
    code, output, errors = gradclip("compare", path)
    assert (code, errors) == (0, "")
    assert "…" not in output
    assert sum(line.startswith("skipped ") for line in output.splitlines()) == len(replays(run()))
    numbers = [word for line in wide.splitlines() if "%" in line for word in line.split()[1:] if word != "%"]
    assert set(numbers) <= set(output.split())


def test_json_and_a_figure(gradclip, tmp_path):
    path = write(run(), tmp_path / "log.jsonl")
    figure = tmp_path / "compare.svg"
    code, output, errors = gradclip("compare", path, "--json", "-o", figure)
    assert (code, errors) == (0, "")
    found = {one["policy"]: one for one in json.loads(output)["policies"]}
    assert found["SkipStep(sigma=6)"]["clipped"] == 0
    assert found["AdaGC()"]["median_threshold"] is None
    assert figure.read_text().startswith("<?xml")


def test_a_log_without_a_suggestion_has_no_fixed_threshold(gradclip, tmp_path):
    history = run()
    calm = replace(history, norm=np.ones(600), parameters={})
    output = gradclip("compare", write(calm, tmp_path / "log.jsonl"))[1]
    assert "Fixed" not in output
    assert "AutoClip()" in output

"""``python -m benchmarks --quick`` writes its files and prints its tables."""

import json

import pytest

from benchmarks import frameworks, isolated, session, timing
from benchmarks.__main__ import main
from benchmarks.report import Report
from benchmarks.timing import Plan

ONLY = r"^numpy/clip_by_global_norm_/(mlp|gpt)|^numpy/global_norm|^memory/numpy/.*float32|^accuracy/\[300"


@pytest.fixture
def numpy_only(monkeypatch):
    monkeypatch.setattr(frameworks, "NAMES", ("numpy",))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frameworks, "NAMES", ("numpy",))
        path = tmp_path_factory.mktemp("out")
        assert main(["--quick", "--rounds", "2", "--only", ONLY, "--out", str(path)]) == 0
    return path


def test_json_has_everything(out):
    found = json.loads((out / "benchmarks.json").read_text(encoding="utf-8"))
    assert found["schema"] == 1
    assert found["quick"] is True
    assert found["failed"] == {}
    assert {"cpu", "cores", "memory_gib", "system", "python", "date", "commit"} <= found["machine"].keys()
    assert "numpy" in found["versions"]
    assert len(found["speed"]) == 5
    row = found["speed"][0]
    assert row["name"] == "numpy/clip_by_global_norm_/gpt-2-small/float32/not-clipped"
    assert (row["leaves"], row["elements"], row["bytes_read"], row["bytes_written"]) == (148, 124439808, 497759232, 0)
    assert row["rounds"] == 2
    assert [c["role"] for c in row["contenders"]] == ["ours", "peer", "peer", "floor"]
    for contender in row["contenders"]:
        assert contender["seconds"].keys() == contender["times_gradclip"].keys() == {"median", "low", "high"}
    assert row["budgets"][0]["times"] == 1.8
    assert isinstance(row["budgets"][0]["met"], bool)


def test_json_has_memory_and_accuracy(out):
    found = json.loads((out / "benchmarks.json").read_text(encoding="utf-8"))
    assert found["memory"][0]["extra_bytes"].keys() == {"gradclip"}
    (accuracy,) = found["accuracy"]
    by_name = {answer["implementation"]: answer for answer in accuracy["norm"]}
    assert by_name["gradclip, NumPy"]["value"] == 600
    assert by_name["np.linalg.norm a leaf"]["value"] == "inf"


def test_picture_and_markdown(out):
    assert (out / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "benchmarks.md").read_text(encoding="utf-8")
    assert "| NumPy `clip_by_global_norm_`, MLP, float32, clipped |" in text
    assert "**inf**" in text
    assert "cut down" in text


def test_a_busy_machine_is_a_caveat():
    quiet = {"load_before": 0.2, "cores": 2}
    assert Report(quiet, quick=False).caveat == ""
    assert "load 3" in Report({**quiet, "load_before": 3.0}, quick=False).caveat
    assert "mean nothing" in Report(quiet, quick=True).caveat


def test_table_is_not_cut_in_a_pipe(numpy_only, tmp_path, capsys):
    main(["--quick", "--rounds", "1", "--only", "^numpy/global_norm", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "np.linalg.norm a leaf" in text
    assert "its time / gradclip's" in text
    assert "…" not in text


def test_list_names_rows_and_reasons(monkeypatch, capsys):
    monkeypatch.setattr(frameworks, "NAMES", ("numpy", "absent"))
    skipped = session.Skipped("absent/*", "absent is not installed")
    load = frameworks.load
    monkeypatch.setattr(frameworks, "load", lambda name: skipped if name == "absent" else load(name))
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    budget = "≥ 1.8× against np.linalg.norm a leaf, multiply"
    assert f"numpy/clip_by_global_norm_/gpt-2-small/float32/not-clipped  {budget}" in lines
    assert "absent/*  skipped: absent is not installed" in lines


def test_what_fails_is_reported_and_the_rest_goes_on(numpy_only, monkeypatch, tmp_path):
    measure = timing.measure

    def failing(row, plan):
        if row.case == "clipped":
            raise ValueError("no")
        return measure(row, plan)

    monkeypatch.setattr(timing, "measure", failing)
    assert main(["--quick", "--rounds", "1", "--only", "^numpy/clip_by_global_norm_/mlp", "--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    assert found["failed"] == {"numpy/clip_by_global_norm_/mlp/float32/clipped": "ValueError: no"}
    assert len(found["speed"]) == 1


def test_each_framework_is_timed_in_a_process_of_its_own():
    row = frameworks.find("numpy/clip_by_global_norm_/mlp/float32/not-clipped")
    with isolated.measuring(Plan(rounds=1, sample_seconds=1e-4)) as measure:
        result = measure(row)
    assert result.row is row
    assert result.ours.seconds.median > 0
    with pytest.raises(LookupError, match="no row is called 'numpy/other'; python -m benchmarks --list"):
        frameworks.find("numpy/other")


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--rounds", "x"], ["--only", "("]])
def test_wrong_options_leave_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert arguments[1] in capsys.readouterr().err

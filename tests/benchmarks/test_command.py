"""``python -m benchmarks --quick`` writes its files and prints its tables."""

import json

import pytest

from benchmarks import frameworks, isolated, session, timing
from benchmarks.__main__ import main
from benchmarks.report import Report
from benchmarks.timing import Plan
from gradclip import _native

KERNELS = _native.kernels() is not None  # one peer, the least Python, calls them
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


def test_json_has_the_figures_of_the_tables(out):
    found = json.loads((out / "benchmarks.json").read_text(encoding="utf-8"))
    assert found["schema"] == 2
    assert found["quick"] is True
    assert found["failed"] == {}
    assert {"cpu", "cores", "memory_gib", "system", "python", "date", "commit"} <= found["machine"].keys()
    assert "numpy" in found["versions"]
    assert len(found["speed"]) == 5
    row = found["speed"][0]
    assert row["name"] == "numpy/clip_by_global_norm_/gpt-2-small/float32/not-clipped"
    assert row["rounds"] == 2
    contenders = list(row["contenders"].values())
    assert [c["role"] for c in contenders] == ["ours", *["peer"] * (2 + KERNELS), "floor"]
    for contender in contenders:
        median, low, high = contender["seconds"]
        assert low <= median <= high
        assert ("times_gradclip" in contender) == (contender["role"] != "ours")
    ((budget, met),) = row["budgets"].items()
    assert budget == "≥ 1.8× against np.linalg.norm a leaf, multiply"
    assert isinstance(met, bool)


def test_json_has_a_line_a_row(out):
    lines = (out / "benchmarks.json").read_text(encoding="utf-8").splitlines()
    assert sum('"rounds": 2' in line for line in lines) == 5
    assert json.loads(lines[lines.index('"speed": [') + 1].rstrip(","))["rounds"] == 2


def test_json_has_memory_and_accuracy(out):
    found = json.loads((out / "benchmarks.json").read_text(encoding="utf-8"))
    assert found["memory"][0]["extra"].keys() == {"gradclip"}
    (accuracy,) = found["accuracy"]
    assert accuracy["norm"]["right"] == 600
    assert accuracy["norm"]["gradclip, NumPy"] == [600, 0]
    assert accuracy["norm"]["np.linalg.norm a leaf"] == ["inf", "inf"]


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

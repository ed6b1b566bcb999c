"""What is not there is skipped, with its reason."""

import sys
from importlib.util import find_spec

import pytest

from benchmarks import frameworks
from benchmarks.row import Skipped


def test_a_framework_that_is_not_installed_is_skipped(monkeypatch):
    monkeypatch.delitem(sys.modules, "benchmarks.rows_torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    skipped = frameworks.load("torch")
    assert isinstance(skipped, Skipped)
    assert skipped.name == "torch/*"
    assert "torch" in skipped.reason


def test_a_missing_module_of_our_own_is_an_error():
    with pytest.raises(ModuleNotFoundError, match="rows_nothing"):
        frameworks.load("nothing")


def test_an_adapter_that_is_not_in_this_version_is_a_reason():
    assert frameworks.adapter("nothing") == (None, "gradclip.backends.nothing is not in this version")


@pytest.mark.parametrize("name", frameworks.NAMES)
def test_rows_have_unique_names_and_budgets_against_contenders(name):
    framework = frameworks.load(name)
    if isinstance(framework, Skipped):
        assert find_spec(name) is None
        pytest.skip(framework.reason)
    rows = list(framework.rows())
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        if row.missing is None and row.gradients.size < 1e6:
            setup = row.build(row.gradients)
            names = {c.name for c in setup.contenders} | {c.role for c in setup.contenders}
            assert {budget.against for budget in row.budgets} <= names
            assert [c.role for c in setup.contenders].count("ours") == 1


def test_numpy_has_every_set_clipped_and_not():
    names = [row.name for row in frameworks.load("numpy").rows()]
    for gradients in ("gpt-2-small", "resnet-50", "mlp", "1000-x-64", "256-mb"):
        for case in ("clipped", "not-clipped"):
            assert f"numpy/clip_by_global_norm_/{gradients}/float32/{case}" in names

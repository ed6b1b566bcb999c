"""The JSON files: short, and read back as what was written."""

import json
import math
from pathlib import Path

from benchmarks import compact


def test_lists_have_a_line_for_each_element_and_the_rest_one(tmp_path):
    path = tmp_path / "found.json"
    compact.write(path, {"machine": {"cores": 2}, "rows": [{"ratio": 1.23456789}, {"ratio": math.inf}], "failed": []})
    assert path.read_text(encoding="utf-8") == (
        '{\n"machine": {"cores": 2},\n"rows": [\n {"ratio": 1.23457},\n {"ratio": "inf"}\n],\n"failed": []\n}\n'
    )


def test_numbers_are_rounded_wherever_they_are():
    found = {"a": (0.123456789, [1234567.89, math.nan]), "b": 123456789, "c": None, "d": True}
    assert compact.rounded(found) == {"a": [0.123457, [1234570.0, "nan"]], "b": 123456789, "c": None, "d": True}


def test_results_in_the_repository_are_small_and_of_the_form_that_is_written():
    for path in (Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert compact.rounded(found) == found
        assert len(path.read_text(encoding="utf-8").splitlines()) < 200

"""What a release needs: files that are whole, versions that are written once, actions that are pinned."""

import json
import re
import tomllib
from pathlib import Path

import pytest

import gradclip

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = CONFIG["project"]["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits_and_say_which_version_that_is(workflow):
    used = re.findall(r"uses: (.+)", workflow.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_that_there_are(workflow):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"run: make (\w+)", workflow.read_text())) <= set(targets)


def test_pre_commit_runs_the_ruff_of_make_lint():
    (pinned,) = EXTRAS["lint"]
    hook = re.search(r"ruff-pre-commit\n    rev: v(\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hook is not None
    assert f"ruff=={hook[1]}" == pinned


def test_the_conda_recipe_asks_for_what_the_package_does():
    recipe = (ROOT / "recipe" / "recipe.yaml").read_text()
    for requirement in CONFIG["project"]["dependencies"]:
        name, bound = requirement.split(">=")
        assert f"- {name} >={bound}\n" in recipe
    assert f'python_min: "{CONFIG["project"]["requires-python"].removeprefix(">=")}"' in recipe


def test_the_version_is_written_once():
    version = re.escape(gradclip.__version__)
    files = [ROOT / name for name in ("pyproject.toml", "setup.py", "CITATION.cff", "README.md", "docs/conf.py")]
    assert not [file.name for file in files if re.search(rf"\b{version}\b", file.read_text())]


def test_the_oldest_and_the_newest_python_of_the_classifiers_are_in_the_matrix():
    found = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", c) for c in CONFIG["project"]["classifiers"]]
    minors = sorted(int(match[1]) for match in found if match)
    assert CONFIG["project"]["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[-1] + 1))
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (matrix,) = re.findall(r"^ +python: \[(.+)\]$", workflow, re.MULTILINE)
    assert {f'"3.{minors[0]}"', f'"3.{minors[-1]}"'} <= set(matrix.split(", "))


def test_workflows_ask_for_no_older_version_than_the_extras():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    asked = re.findall(r'"([a-z]+>=[\d.]+)"', workflow)
    assert asked
    assert all([requirement] == EXTRAS[requirement.split(">=")[0]] for requirement in asked)


def test_renovate_json_is_json():
    assert json.loads((ROOT / "renovate.json").read_text())["extends"]

"""The code of the pages about trainers runs as it stands there, from top to bottom."""

import ast
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "integrations"
RUN = ("accelerate", "ignite", "lightning", "skorch", "stable-baselines3", "transformers")


def code_of(page):
    blocks = re.findall(r"^```python\n(.*?)^```$", (PAGES / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    return "\n".join(blocks)


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(page), f"{page}.md", "exec"), {"__name__": "__main__"})
    assert "grad_norm" in code_of(page)
    assert capsys.readouterr().out


def test_the_recipe_for_fastai_is_python():
    ast.parse(code_of("fastai"))

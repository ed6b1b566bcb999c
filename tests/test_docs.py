"""What README and docs show is run, and what they point to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


RUN_BY = {
    "docs/integrations": ROOT / "tests" / "integrations" / "test_pages.py",  # each page as one program, by its trainer
    "docs/parallelism.md": ROOT / "tests" / "parallelism" / "recipe.py",  # functions of the page, on several processes
}
"""Pages whose code is not a doctest, and what runs it."""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_of_python_is_run(page):
    (by,) = [by for where, by in RUN_BY.items() if name(page).startswith(where)] or [None]
    for code in [code for language, code in BLOCK.findall(page.read_text()) if language in ("python", "py", "pycon")]:
        if code.startswith(">>> "):
            shows_output = not re.match(r">>> |\.\.\. ?", code.rstrip("\n").splitlines()[-1])
            assert not shows_output or code.endswith("\n\n"), f"doctest takes ``` for output after:\n{code}"
        else:
            assert by is not None, f"no test runs this block of {name(page)}:\n{code}"
            assert by.exists()
            assert "recipe" not in by.name or re.search(r"^(def|class) ", code, re.MULTILINE), code


@pytest.mark.parametrize("readme", READMES, ids=name)
def test_links_of_the_readme_are_absolute_and_lead_to_pages_and_files(readme):
    links = re.findall(r"\]\((\S+?)\)", readme.read_text())
    assert all(link.startswith("https://") for link in links)
    for link in links:
        if page := re.fullmatch(r"https://gradclip\.readthedocs\.io/en/latest/(.+)\.html", link):
            assert (ROOT / "docs" / f"{page[1]}.md").exists(), link
        if file := re.fullmatch(r"https://\S+/gradclip/gradclip/(?:blob/)?main/(.+)", link):
            assert (ROOT / file[1]).exists(), link


def test_the_readme_is_short():
    assert len(READMES[0].read_text().splitlines()) < 110


def test_both_readmes_show_the_same_code():
    ours, chinese = ([code for _, code in BLOCK.findall(readme.read_text())] for readme in READMES)
    assert [_without_comments(code) for code in ours] == [_without_comments(code) for code in chinese]


def test_both_starts_show_the_same_code():
    ours, chinese = ((ROOT / "docs" / f"start{language}.md").read_text() for language in ("", ".zh-CN"))
    assert [_without_comments(c) for _, c in BLOCK.findall(ours)] == [
        _without_comments(c) for _, c in BLOCK.findall(chinese)
    ]


def _without_comments(code: str) -> str:
    return re.sub(r"  # (?!doctest).*", "", code)

"""How Sphinx builds the documentation: ``make docs``."""

import os
from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

import gradclip

HERE = Path(__file__).parent

project = "gradclip"
author = "The gradclip developers"
project_copyright = "The gradclip developers"
version = release = gradclip.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "conftest.py", "gallery/*.py", "gallery/*.ipynb", "gallery/*.zip"]
nitpicky = False  # docstrings name dtypes and words in backticks, too

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_typehints = "none"  # docstrings have the types, in words
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False
add_module_names = False
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",  # only these are run: the others train for minutes
    "ignore_pattern": r"__init__\.py",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "gradclip"
html_static_path = ["_static"]
html_css_files = ["gradclip.css"]
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
html_sidebars = {"start*": []}  # without pages below them, there is nothing to show at the side
html_theme_options = {
    "logo": {"text": "gradclip", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "github_url": "https://github.com/gradclip/gradclip",
    "use_edit_page_button": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"github_user": "gradclip", "github_repo": "gradclip", "github_version": "main", "doc_path": "docs"}

linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]  # GitHub makes these anchors in the browser
linkcheck_ignore = [r"https://doi\.org/.*"]

if os.environ.get("READTHEDOCS"):  # needs the network
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
    }

REFERENCE = (
    "gradclip",
    "gradclip.policies",
    "gradclip.monitor",
    "gradclip.backends.torch",
    "gradclip.backends.jax",
    "gradclip.backends.optax",
    "gradclip.backends.cupy",
)
"""The modules whose ``__all__`` the reference lists, one page each."""


def write_reference(_: Sphinx) -> None:
    """Write a page for each module of `REFERENCE`: a table of its names, then each docstring."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    seen: dict[int, str] = {}
    for name in REFERENCE:
        page, text = folder / f"{name}.rst", _page(name, seen)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _page(name: str, seen: dict[int, str]) -> str:
    """Return the page of a module; what an earlier page has, such as an error that all raise, is a link."""
    module = import_module(name)
    entries, elsewhere = [], []
    for member in sorted(module.__all__, key=str.lower):
        found = getattr(module, member)
        if id(found) in seen:
            elsewhere.append(f":py:obj:`{member} <{seen[id(found)]}.{member}>`")
            continue
        seen[id(found)] = name
        is_class = isinstance(found, type)
        directive = (
            f".. autoclass:: {name}.{member}\n   :members:" if is_class else f".. autofunction:: {name}.{member}"
        )
        entries.append((member, directive))
    rows = "\n".join(f"   {member}" for member, _ in entries)
    also = f"Also here, as in gradclip: {', '.join(elsewhere)}.\n\n" if elsewhere else ""
    return (
        f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :no-members:\n\n.. currentmodule:: {name}\n\n"
        f".. autosummary::\n\n{rows}\n\n{also}" + "\n\n".join(entry for _, entry in entries) + "\n"
    )


def drop_blank_last_lines(_: Sphinx, __: str, source: list[str]) -> None:
    """Remove the blank line with which doctests in Markdown end."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app: Sphinx) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("source-read", drop_blank_last_lines)
    app.connect("builder-inited", write_reference)

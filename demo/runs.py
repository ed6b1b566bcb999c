"""The three runs of the demo: train, report, draw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from demo.backend import Backend, Sizes
from demo.checks import RefusedError
from demo.clipping import ByGlobalNorm, ByValue, NoClipping, Rule
from demo.progress import watching
from demo.report import show_report
from demo.text import Corpus
from demo.train import Recipe, train


@dataclass(frozen=True)
class Demo:
    """The checked options."""

    backend: Backend[Any]
    corpus: Corpus
    recipe: Recipe
    max_norm: float
    max_value: float
    out: Path


def run_demo(console: Console, demo: Demo) -> None:
    """Train without clipping, with clipping by global norm and by value, and show the results."""
    sizes = Sizes(len(demo.corpus.characters))
    rules: list[Rule] = [NoClipping(), ByGlobalNorm(demo.max_norm), ByValue(demo.max_value)]
    _introduce(console, demo, sizes)
    with watching(console, rules, demo.recipe.steps) as watch:
        runs = [train(demo.backend, demo.corpus, sizes, demo.recipe, rule, watch) for rule in rules]
    show_report(console, runs)

    from demo.plot import save_figure  # matplotlib takes a second to load: not for --help

    try:
        save_figure(demo.out, runs, sizes.vocabulary)
    except OSError as error:
        raise RefusedError(f"--out {demo.out} could not be written: {error.strerror}. Name another file.") from None
    console.print(f"Losses and gradient norms: {demo.out}", highlight=False, markup=False, soft_wrap=True)


def _introduce(console: Console, demo: Demo, sizes: Sizes) -> None:
    """Print what is trained, on which text."""
    recipe = demo.recipe
    lines = (
        f"Text      {demo.corpus.source}, {len(demo.corpus.codes):,} characters",
        f"Network   {sizes.hidden} units, {sizes.weights:,} weights, unrolled over {sizes.length} characters",
        f"Training  {recipe.steps:,} steps of plain SGD, learning rate up to {recipe.rate:g}, seed {recipe.seed}",
        f"Clipping  max_norm {demo.max_norm:g}, max_value {demo.max_value:g}",
        "",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

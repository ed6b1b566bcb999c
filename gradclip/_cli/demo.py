"""The demo from one end to the other: train three times, report, draw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from gradclip._cli.backend import Backend, Sizes
from gradclip._cli.clipping import ByGlobalNorm, ByValue, NoClipping, Rule
from gradclip._cli.progress import watching
from gradclip._cli.report import show_report
from gradclip._cli.text import Corpus
from gradclip._cli.train import Recipe, train


@dataclass(frozen=True)
class Demo:
    """What the user asked for, checked."""

    backend: Backend[Any]
    corpus: Corpus
    recipe: Recipe
    max_norm: float
    max_value: float
    out: Path


def run_demo(console: Console, demo: Demo) -> None:
    """Train without clipping, by global norm and by value, and show what came of it."""
    sizes = Sizes(len(demo.corpus.characters))
    rules: list[Rule] = [NoClipping(), ByGlobalNorm(demo.max_norm), ByValue(demo.max_value)]
    _introduce(console, demo, sizes)
    with watching(console, rules, demo.recipe.steps) as watch:
        runs = [train(demo.backend, demo.corpus, sizes, demo.recipe, rule, watch) for rule in rules]
    show_report(console, runs)

    from gradclip._cli.plot import save_figure  # matplotlib takes a second to load: not for --help

    save_figure(demo.out, runs, sizes.vocabulary)
    console.print(f"Losses and gradient norms over the steps: [bold]{demo.out}", highlight=False)


def _introduce(console: Console, demo: Demo, sizes: Sizes) -> None:
    """Say what is trained, and on what."""
    console.print(
        f"Text     {demo.corpus.source}, {len(demo.corpus.codes):,} characters", highlight=False, markup=False
    )
    console.print(
        f"Network  {sizes.hidden} recurrent units, {sizes.weights:,} weights, backpropagation through {sizes.length} "
        f"characters\nTraining {demo.recipe.steps:,} steps of plain SGD, learning rate up to {demo.recipe.rate:g}, "
        f"seed {demo.recipe.seed}; max_norm {demo.max_norm:g}, max_value {demo.max_value:g}\n",
        highlight=False,
    )

"""The options of the demo."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from demo.backend import BACKENDS, Sizes, load_backend
from demo.checks import check_figure, positive, whole_number
from demo.runs import Demo, run_demo
from demo.text import read_corpus
from demo.train import Recipe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text to learn, in UTF-8.  [default: Python's own documentation]"),
    ] = None,
    max_norm: Annotated[
        float,
        typer.Option(
            parser=positive("--max-norm", 1),
            metavar="NUMBER",
            help="The largest global norm let through. The default is about twice the norm at which this network "
            "settles while it learns, 0.45 (see the figure), so that clipping acts on the peaks alone.",
        ),
    ] = 1.0,
    max_value: Annotated[
        float,
        typer.Option(
            parser=positive("--max-value", 0.01),
            metavar="NUMBER",
            help="The largest element let through when clipping by value.",
        ),
    ] = 0.01,
    learning_rate: Annotated[
        float,
        typer.Option(
            parser=positive("--learning-rate", 2),
            metavar="NUMBER",
            help="The peak of the learning rate. Lower it to see where training survives unclipped, and what it "
            "learns then.",
        ),
    ] = 2.0,
    steps: Annotated[
        int,
        typer.Option(
            parser=whole_number("--steps", 1, 1500), metavar="COUNT", help="Training steps for each of the three runs."
        ),
    ] = 1500,
    seed: Annotated[
        int,
        typer.Option(
            parser=whole_number("--seed", 0, 0),
            metavar="SEED",
            help="For the first weights, where reading starts, and the sample.",
        ),
    ] = 0,
    out: Annotated[Path, typer.Option(metavar="PATH", help="The figure: .png, .pdf or .svg.")] = Path("demo.png"),
    backend: Annotated[
        str, typer.Option(metavar="NAME", help=f"What computes the network: {', '.join(BACKENDS)}.")
    ] = "numpy",
) -> None:
    """Watch clipping save a training run.

    Trains a plain character-level recurrent network three times on the same
    text from the same seed: without clipping, clipped by global norm, and
    clipped by value. Then compares the runs in a table and a figure.
    """
    check_figure(out)
    network = load_backend(backend)
    corpus = read_corpus(text, Sizes.rows * (Sizes.length + 1))
    run_demo(Console(), Demo(network, corpus, Recipe(steps, seed, learning_rate), max_norm, max_value, out))

"""One training run. Network, text and seed are the same for every rule."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from demo.backend import Backend, Sizes
from demo.clipping import Rule
from demo.text import Corpus, batches
from demo.threads import one_thread

WARM_UP = 0.1
"""The fraction of the steps in which the learning rate rises from 0. Without it, the unclipped run ends sooner."""

LAST = 0.1
"""The final loss is the median over this fraction of the steps, because the loss of one batch is noisy."""

PROMPT, SAMPLE = "The ", 160

Watch: TypeAlias = Callable[["Run"], None]
"""Called after every step."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Parameters
    ----------
    steps : int
    seed : int
        The seed of the first weights, of the position in the text where reading starts, and of the sample.
    rate : float
        The largest learning rate: it rises linearly to it and then falls linearly to 0.
    """

    steps: int
    seed: int
    rate: float

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.rate * min((step + 1) / (WARM_UP * self.steps), 1 - step / self.steps)


@dataclass
class Run:
    """What happened in a run.

    Parameters
    ----------
    rule : Rule
    steps : int
        The number of steps that were planned.
    losses, norms : list of float
        For each step with a finite loss: nats per character, and the norm of the gradient before clipping.
    clipped : int
        The number of steps in which clipping changed something.
    fatal : float or None
        The loss that is not finite and ended the run, or None.
    prompt, sample : str
        The start of a text for the trained network, and that start with the network's continuation, which is empty if
        weights are not finite.
    """

    rule: Rule
    steps: int
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    clipped: int = 0
    fatal: float | None = None
    prompt: str = ""
    sample: str = ""

    @property
    def survived(self) -> int:
        """The number of steps with a finite loss."""
        return len(self.losses)

    @property
    def largest_norm(self) -> float:
        """The largest norm, which may be inf; NaN if no step had one."""
        return max((norm for norm in self.norms if not math.isnan(norm)), default=math.nan)

    @property
    def final_loss(self) -> float:
        """The median loss of the last steps, or the loss that ended the run."""
        if self.fatal is not None:
            return self.fatal
        return median(self.losses[-max(1, int(LAST * self.steps)) :])


def train(backend: Backend[Any], corpus: Corpus, sizes: Sizes, recipe: Recipe, rule: Rule, watch: Watch) -> Run:
    """Train until the steps are over or the loss is not finite.

    Overflows are neither caused nor prevented. NumPy's warnings about them are off, because the run reports them.
    """
    run = Run(rule, recipe.steps)
    params, hidden = backend.init(recipe.seed, sizes), backend.hidden(sizes)
    start = int(np.random.default_rng(recipe.seed).integers(len(corpus.codes)))
    feed = batches(corpus.codes, sizes.rows, sizes.length, start)
    with np.errstate(all="ignore"), one_thread():
        for step, batch in zip(range(recipe.steps), feed, strict=False):
            hidden = backend.hidden(sizes) if batch.first else hidden
            loss, grads, hidden = backend.loss_and_grads(params, hidden, batch)
            if not math.isfinite(loss):
                run.fatal = loss
                break
            grads, norm, clipped = rule(backend, grads)
            params = backend.sgd(params, grads, recipe.rate_at(step))
            run.losses.append(loss)
            run.norms.append(norm)
            run.clipped += clipped
            watch(run)
        prompt = corpus.encode(PROMPT) or [0]
        run.prompt = corpus.decode(prompt)
        run.sample = corpus.decode(backend.sample(params, prompt, SAMPLE, recipe.seed))
    watch(run)
    return run

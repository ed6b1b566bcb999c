"""The gradients that are clipped: shapes of real models, values from a seeded generator."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

NDArray: TypeAlias = np.ndarray[Any, Any]
Shape: TypeAlias = tuple[int, ...]

_SEED = 2020
_BLOCK = 1 << 20
"""Distinct values in a set. Large leaves repeat them: drawing 124 million numbers for each row would take minutes."""


@dataclass(frozen=True, slots=True)
class GradientSet:
    """The shapes of a model's gradients.

    Parameters
    ----------
    title : str
        The name in tables.
    shapes : tuple of shapes
        One for each leaf, in the model's order.
    """

    title: str
    shapes: tuple[Shape, ...]

    @property
    def size(self) -> int:
        """The number of elements in all leaves."""
        return sum(math.prod(shape) for shape in self.shapes)

    def shrunk(self, parts: int = 128, most: int = 6) -> "GradientSet":
        """Return a few leaves, each with its longest axis cut, for ``--quick``."""
        return GradientSet(self.title, tuple(_shrunk(shape, parts) for shape in self.shapes[:most]))


def _shrunk(shape: Shape, parts: int) -> Shape:
    longest = shape.index(max(shape))
    return tuple(max(1, n // parts) if axis == longest else n for axis, n in enumerate(shape))


def _gpt2_small(width: int = 768, layers: int = 12, tokens: int = 50257, context: int = 1024) -> tuple[Shape, ...]:
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    mlp = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    block = [*norm, *attention, *norm, *mlp]
    return ((tokens, width), (context, width), *(block * layers), *norm)


def _resnet50() -> tuple[Shape, ...]:
    """Return convolution, batch-norm scale and shift in torchvision's order: 53 times three, then the classifier."""
    shapes: list[Shape] = []

    def convolution(into: int, out: int, kernel: int) -> None:
        shapes.extend([(out, into, kernel, kernel), (out,), (out,)])

    convolution(3, 64, 7)
    into = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolution(into, width, 1)
            convolution(width, width, 3)
            convolution(width, 4 * width, 1)
            if block == 0:
                convolution(into, 4 * width, 1)  # the shortcut changes the number of channels
            into = 4 * width
    return (*shapes, (1000, into), (1000,))


GPT2_SMALL = GradientSet("GPT-2-small", _gpt2_small())
RESNET50 = GradientSet("ResNet-50", _resnet50())
MLP = GradientSet("MLP", ((256, 784), (256,), (128, 256), (128,), (10, 128), (10,)))
MANY_SMALL = GradientSet("1,000 x 64", ((64,),) * 1000)
HUNDRED_SMALL = GradientSet("100 x 64", ((64,),) * 100)
ONE_LARGE = GradientSet("256 MB", ((1 << 26,),))  # in float32
TINY = GradientSet("tiny", ((4, 3), (4,), (2, 4), (2,)))

FIVE = (GPT2_SMALL, RESNET50, MLP, MANY_SMALL, ONE_LARGE)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name.

    Raises
    ------
    ModuleNotFoundError
        For ``"bfloat16"`` without ml_dtypes, which adds it to NumPy.
    """
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def values(gradients: GradientSet, dtype: str) -> list[NDArray]:
    """Return leaves of normal numbers with standard deviations from 1e-3 to 1.6e-2, another one for each leaf.

    Each leaf is a separate allocation, as gradients are, and is written completely, so that its memory pages exist. The
    numbers are normal in every dtype, except those near zero in float16, because arithmetic on subnormal numbers has
    another speed.
    """
    random = np.random.default_rng(_SEED)
    block = random.standard_normal(_BLOCK, dtype=np.float32)
    deviations = 4e-3 * 2.0 ** random.uniform(-2, 2, len(gradients.shapes))
    starts = random.integers(0, _BLOCK, len(gradients.shapes))
    leaves = [np.empty(shape, dtype_of(dtype)) for shape in gradients.shapes]
    for leaf, deviation, start in zip(leaves, deviations, starts, strict=True):
        _fill(leaf.reshape(-1), (np.roll(block[: leaf.size], -start) * np.float32(deviation)).astype(leaf.dtype))
    return leaves


def _fill(flat: NDArray, numbers: NDArray) -> None:
    for start in range(0, flat.size, numbers.size):  # in pieces, because rows of memory would count a copy of a leaf
        piece = flat[start : start + numbers.size]
        piece[:] = numbers[: piece.size]

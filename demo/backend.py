"""What a framework must provide to run the demo. Training, report and figure are the same for all frameworks."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeVar

from demo.checks import RefusedError
from demo.text import Batch

Array = TypeVar("Array")

BACKENDS = {
    "numpy": "demo.rnn",
    "torch": "demo.rnn_torch",
    "jax": "demo.rnn_jax",
    "cupy": "demo.rnn_cupy",
}
"""The module of each backend. It has a class ``RNN`` and is imported only if the user asks for it."""

TEMPERATURE = 0.5
"""The temperature of the sample: below 1, likely characters become more likely."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of the network and of a batch.

    Parameters
    ----------
    vocabulary : int
        The number of distinct characters.
    hidden : int
        The number of recurrent units.
    rows : int
        The number of pieces of text that are read in parallel.
    length : int
        The number of characters through which the gradient goes back.
    """

    vocabulary: int
    hidden: int = 192
    rows: int = 32
    length: int = 64

    @property
    def weights(self) -> int:
        """The number of trained weights."""
        return self.hidden * (2 * self.vocabulary + self.hidden + 1) + self.vocabulary


class Backend(Protocol[Array]):
    """A plain recurrent network on one framework; parameters and gradients are a dict of its arrays.

    A method may write to the gradients and parameters that it gets and return them, or return new ones. The caller
    uses what the method returns.
    """

    def init(self, seed: int, sizes: Sizes) -> dict[str, Array]:
        """Return the parameters to start from: the same numbers for the same seed."""
        ...

    def hidden(self, sizes: Sizes) -> Array:
        """Return the hidden state before any text: zeros of shape (rows, hidden)."""
        ...

    def loss_and_grads(
        self, params: dict[str, Array], hidden: Array, batch: Batch
    ) -> tuple[float, dict[str, Array], Array]:
        """Return the mean cross-entropy per character in nats, its gradient, and the last hidden state."""
        ...

    def global_norm(self, grads: dict[str, Array], ord: float = 2.0) -> float:
        """Return the norm of all gradients laid end to end."""
        ...

    def clip_by_global_norm(self, grads: dict[str, Array], max_norm: float) -> tuple[dict[str, Array], float]:
        """Return gradients whose norm is at most ``max_norm``, and the norm before."""
        ...

    def clip_by_value(self, grads: dict[str, Array], max_value: float) -> dict[str, Array]:
        """Return gradients whose elements are in [-max_value, max_value]."""
        ...

    def sgd(self, params: dict[str, Array], grads: dict[str, Array], rate: float) -> dict[str, Array]:
        """Return the parameters after one step of plain gradient descent."""
        ...

    def sample(self, params: dict[str, Array], prompt: list[int], length: int, seed: int) -> list[int]:
        """Return ``prompt`` and up to ``length`` further codes; fewer if the weights are no longer finite."""
        ...


def load_backend(name: str) -> Backend[Any]:
    """Return the backend of that name.

    Raises
    ------
    RefusedError
        If there is none, or its framework is not installed, or it needs a GPU and finds none.
    """
    if name in BACKENDS:
        try:
            backend: Backend[Any] = import_module(BACKENDS[name]).RNN()
        except ModuleNotFoundError as e:
            raise RefusedError(
                f"--backend {name} needs {e.name}, which is not installed. "
                f'Install it by pip install "gradclip[{name}]", or try --backend numpy.'
            ) from e
        return backend
    there = ", ".join(BACKENDS)
    raise RefusedError(
        f"--backend {name} is not a backend; expected one of: {there}. Try --backend {there.split(',')[0]}."
    )

"""The demo's recurrent network on a GPU: the code of the NumPy network on CuPy's arrays."""

from typing import Any

from demo import rnn
from demo.backend import Sizes
from demo.checks import RefusedError
from demo.text import Batch
from gradclip.backends import cupy as adapter
from gradclip.backends.cupy._runtime import runtime


class RNN(rnn.RNN):
    """The network on CuPy, a `Backend`. Gradients and parameters are written in place; samples are drawn on the host.

    Raises
    ------
    RefusedError
        If CuPy is not installed, or there is no GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self._cupy: Any = runtime().cupy
        except RuntimeError as e:
            raise RefusedError(f"--backend cupy cannot run: {e}. Try --backend numpy.") from e

    def init(self, seed: int, sizes: Sizes) -> Any:
        """Draw the same weights as NumPy does, and put them on the GPU."""
        return {name: self._cupy.asarray(array) for name, array in super().init(seed, sizes).items()}

    def hidden(self, sizes: Sizes) -> Any:
        """Return zeros of shape (rows, hidden)."""
        return self._cupy.asarray(super().hidden(sizes))

    def loss_and_grads(self, params: Any, hidden: Any, batch: Batch) -> tuple[float, Any, Any]:
        """Return the mean cross-entropy per character in nats, its gradient, and the last hidden state."""
        moved = batch._replace(inputs=self._cupy.asarray(batch.inputs), targets=self._cupy.asarray(batch.targets))
        return super().loss_and_grads(params, hidden, moved)

    def global_norm(self, grads: Any, ord: float = 2.0) -> float:
        """Return the norm of all gradients laid end to end."""
        return float(adapter.global_norm(grads, ord=ord))

    def clip_by_global_norm(self, grads: Any, max_norm: float) -> tuple[Any, float]:
        """Clip in place; return the gradients and the norm that they had."""
        norm = adapter.clip_by_global_norm_(grads, max_norm)
        return grads, float(norm)

    def clip_by_value(self, grads: Any, max_value: float) -> Any:
        """Clip in place."""
        adapter.clip_by_value_(grads, max_value)
        return grads

    def sample(self, params: Any, prompt: list[int], length: int, seed: int) -> list[int]:
        """Draw one character after another, on the host."""
        return super().sample({name: self._cupy.asnumpy(array) for name, array in params.items()}, prompt, length, seed)

"""Pytrees of known values, and how to read JAX's arrays exactly."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

VALUES = {"w": np.array([[3.0, -1.5], [0.25, 8.0]]), "b": np.array([-4.0, 0.0, 0.5])}
MAX_NORM = 2.5


class Pair(NamedTuple):
    w: Any
    b: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    w: Any
    b: Any
    name: str = dataclasses.field(default="record", metadata={"static": True})


class Module(eqx.Module):
    w: jax.Array
    b: jax.Array
    activation: Any = jax.nn.relu
    width: int = eqx.field(static=True, default=3)


@jax.tree_util.register_pytree_with_keys_class
class Node:
    def __init__(self, w: Any, b: Any) -> None:
        self.w, self.b = w, b

    def tree_flatten_with_keys(self) -> Any:
        key = jax.tree_util.GetAttrKey
        return ((key("w"), self.w), (key("b"), self.b)), None

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> "Node":
        return cls(*children)


MAKERS = {
    "dict": dict,
    "list": lambda w, b: [w, b],
    "tuple": lambda w, b: (w, (b, None)),
    "NamedTuple": Pair,
    "dataclass": Record,
    "registered node": Node,
    "Equinox module": Module,
    "NNX state": lambda w, b: nnx.State({"layer": {"w": nnx.Param(w), "b": nnx.Param(b)}}),
    "float0": lambda w, b: {"w": w, "b": b, "i": np.zeros(3, jax.dtypes.float0)},
}


def make(kind: str, dtype: Any = jnp.float32) -> Any:
    return MAKERS[kind](**{name: jnp.asarray(x, dtype) for name, x in VALUES.items()})


def numbers(tree: Any) -> Iterator[complex]:
    """Yield the numbers of a pytree, exactly."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array | np.ndarray) and leaf.dtype != jax.dtypes.float0:
            kind = np.complex128 if np.iscomplexobj(leaf) else np.float64
            yield from np.asarray(leaf).astype(kind).ravel().tolist()

"""optax's own documented examples run, and print what they are documented to print, with the import changed."""

import doctest
import inspect
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest

from gradclip.backends import optax as ours

# optax with our functions in the place of its own: what `from gradclip.backends import optax` in a file gives, but for
# the rest of optax, which the examples use as well.
CHANGED = SimpleNamespace(**{**vars(optax), **{name: getattr(ours, name) for name in ours.__all__}})


def documented():
    for name in ours.__all__:
        text = inspect.getdoc(getattr(optax, name, None)) or ""
        if ">>>" in text:
            yield name, text
    # From the page on gradient transformations, of which clipping is one:
    yield "chain", CHAIN


CHAIN = """
>>> tx = optax.chain(
...     optax.clip_by_global_norm(1.0),
...     optax.scale_by_adam(),
...     optax.scale_by_schedule(optax.exponential_decay(1.0, 1000, 0.99)),
...     optax.scale(-1.0),
... )
>>> params = {'w': jnp.ones((3,)), 'b': jnp.zeros((2,))}
>>> state = tx.init(params)
>>> grads = jax.grad(lambda p: jnp.sum((p['w'] * 10) ** 2) + jnp.sum(p['b']))(params)
>>> updates, state = tx.update(grads, state, params)
>>> params = optax.apply_updates(params, updates)
>>> params['w'].round(3)
Array([0., 0., 0.], dtype=float32)
"""


@pytest.mark.parametrize(("name", "text"), list(documented()), ids=lambda x: x if "\n" not in x else "")
def test_documented(name, text):
    names = {"optax": CHANGED, "jax": jax, "jnp": jnp}
    example = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)


def test_there_are_some():
    assert {name for name, _ in documented()} >= {"per_example_global_norm_clip", "per_example_layer_norm_clip"}

"""What all policies share: they are values, and NaN, inf and 0 at any step leave no trace."""

import copy
import dataclasses
import inspect
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradclip import policies
from gradclip.policies import (
    AdaGC,
    AutoClip,
    EmaClip,
    Fixed,
    Policy,
    QuantileClip,
    Schedule,
    SkipStep,
    ZClip,
)
from gradclip.policies._as_policy import as_policy
from tests.policies.frameworks import run_steps
from tests.policies.recorded import norms, recorded

POLICIES = [
    Fixed(1.0),
    Schedule(math.sqrt),
    AutoClip(window=40),
    ZClip(max_norm=None, warmup_steps=10),
    ZClip(max_norm=None, warmup_steps=10, skip_update_on_spike=True),
    QuantileClip(),
    EmaClip(1.1),
    AdaGC(warmup_steps=10),
    SkipStep(1.0),
    SkipStep(sigma=3, window=16),
    SkipStep(sigma=3, window=16, rule="llm.c"),
]
REMEMBERING = [policy for policy in POLICIES if not isinstance(policy, Fixed | Schedule)]
each = pytest.mark.parametrize("policy", REMEMBERING, ids=repr)
STEPS = 70


def inputs(policy):
    return recorded()[:STEPS] if policy.per_leaf else np.asarray(norms()[:STEPS])


@each
@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_a_bad_norm_at_any_step_changes_no_other_threshold(policy, bad):
    values = inputs(policy)
    convert = np.asarray if policy.per_leaf else float
    expected = run_steps(policy, values, convert)
    for i in range(STEPS):
        with_bad = np.insert(values, i, bad, axis=0)
        np.testing.assert_array_equal(np.delete(run_steps(policy, with_bad, convert), i, axis=0), expected)


@each
def test_also_in_a_compiled_loop_of_jax(policy):
    values = inputs(policy)

    def thresholds(xs):
        return jax.lax.scan(lambda s, x: policy.update(s, x)[::-1], policy.init(xs[0]), xs)[1]

    expected = jax.jit(thresholds)(jnp.asarray(values, jnp.float32))
    bad = [math.nan, math.inf, 0.0]
    where = [(i, bad[i % 3]) for i in range(STEPS)]
    rows = jnp.asarray([np.insert(values, i, b, axis=0) for i, b in where], jnp.float32)
    found = np.asarray(jax.jit(jax.vmap(thresholds))(rows))
    for (i, _), row in zip(where, found, strict=True):
        np.testing.assert_allclose(np.delete(row, i, axis=0), expected, rtol=1e-6)


@each
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_has_a_threshold(policy, bad):
    """It is a number, so that the gradients are clipped, or become NaN, as with a fixed threshold."""
    shape = (3,) if policy.per_leaf else ()
    values = [*inputs(policy), np.full(shape, bad)]
    last = run_steps(policy, values, np.asarray if policy.per_leaf else float)[-1]
    assert np.isfinite(last).all()


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_they_are_values(policy):
    assert isinstance(policy, Policy)
    assert copy.deepcopy(policy) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert hash(policy) == hash(copy.copy(policy))
    name = dataclasses.fields(policy)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(policy, name, 1.0)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_states_are_named_tuples_of_the_kind_of_the_norms(policy):
    for like in (
        (np.ones(3, np.float32), jnp.ones(3)) if policy.per_leaf else (1.0, np.ones((), np.float32), jnp.ones(()))
    ):
        state = policy.init(like)
        max_norm, after = policy.update(state, like)
        assert isinstance(state, tuple)
        assert state._fields == after._fields
        for old, new in zip(state, after, strict=True):
            assert np.shape(old) == np.shape(new)
            assert isinstance(like, float) or old.dtype == new.dtype
            assert not isinstance(like, jax.Array) or isinstance(new, jax.Array)
        assert isinstance(like, float) or max_norm.dtype == like.dtype


def test_the_names():
    assert policies.__all__ == sorted(policies.__all__)
    for name in policies.__all__:
        value = getattr(policies, name)
        assert value.__module__.startswith("gradclip.policies._")
        doc = inspect.getdoc(value)
        if name != "Policy":
            assert all(part in doc for part in ("Parameters\n", "Raises\n", "Examples\n", ">>> "))
            assert set(inspect.signature(value).parameters) <= set(doc.replace(":", " ").split())


def test_what_is_passed_as_a_policy():
    assert as_policy(2) == Fixed(2.0)
    assert as_policy(ZClip()) == ZClip()
    with pytest.raises(TypeError, match=r"max_norm is the class ZClip, expected a policy; pass ZClip\(\)"):
        as_policy(ZClip, "max_norm")
    with pytest.raises(TypeError, match="policy='zclip' is a str, expected a policy or a number; pass one of grad"):
        as_policy("zclip")
    with pytest.raises(TypeError, match="expected a policy or a number"):
        as_policy(jnp.ones(3))
    with pytest.raises(ValueError, match="max_norm=-1"):
        as_policy(-1)

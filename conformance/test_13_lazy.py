"""Clause 13: the host reads no value unless asked to, and no Python branch depends on a traced or lazy value."""

import math
from typing import Any

import numpy as np
import pytest

from gradclip.conformance import oracles, trees
from gradclip.conformance.checks import assert_norm_of, assert_times
from gradclip.conformance.helpers import CLIPS, IN_PLACE, LEAVES, PURE, clip, make, number, read
from gradclip.conformance.oracles import coefficient
from gradclip.conformance.targets import Target
from gradclip.conformance.values import normal


def test_one_program_for_all_values(target: Target, real_dtype: str) -> None:
    """What was compiled for one gradient is right for any: clipped, not clipped, zero, NaN, inf; any threshold."""
    program = target.compiled(lambda g, m: target.api.clip_by_global_norm(g, m))
    for values in (normal(4, real_dtype), np.zeros(4), normal(4, real_dtype, size=1000)):
        for limit in (0.0, 0.5, 1e4, math.inf):
            (got,), norm = program([target.make(values, real_dtype)], target.make(np.array(limit), "float32"))
            assert_norm_of(number(target, norm), [values], [real_dtype])
            if limit == math.inf:
                assert np.array_equal(target.read(got), values)
            else:
                assert_times(target.read(got), values, coefficient(oracles.norm([values]), limit), real_dtype)
    (got,), norm = program([target.make(np.full(4, math.nan), real_dtype)], target.make(np.array(0.5), "float32"))
    assert math.isnan(number(target, norm))
    assert np.all(np.isnan(target.read(got)))


def test_zero_policy_is_decided_by_the_program(target: Target) -> None:
    """nonfinite="zero" needs no look at the values either."""
    program = target.compiled(lambda g: target.api.clip_by_global_norm(g, 0.5, nonfinite="zero")[0])
    for values, right in (
        ([3.0, 4.0], [0.3, 0.4]),
        ([1.0, math.nan], [0, 0]),
        ([math.inf, 1.0], [0, 0]),
        ([0.1, 0.2], [0.1, 0.2]),
    ):
        assert np.allclose(target.read(program(target.make(np.array(values), "float32"))), right, rtol=1e-6)


@pytest.mark.needs("deferred")
@pytest.mark.parametrize("limit", [CLIPS, LEAVES], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("function", PURE)
def test_results_are_deferred(target: Target, function: str, limit: float) -> None:
    """On lazy arrays the results are lazy too: the target refuses to compute anything meanwhile."""
    grads = make(target, [(normal(5, "float32"), "float32"), (normal((2, 2), "float32"), "float32")])
    clipped = clip(target, function, grads, limit)
    assert {type(x) for x in clipped} == {type(x) for x in grads}


@pytest.mark.needs("deferred")
def test_norms_are_deferred(target: Target) -> None:
    """So are norms, partials and sums over examples."""
    x = target.make(normal((3, 4), "float32"), "float32")
    api = target.api
    summed, count = api.clip_per_example(x, 0.5)
    results = [
        api.global_norm(x),
        api.leaf_norms([x])[0],
        api.norm_partial(x).merge(api.norm_partial(x)).norm(),
        summed,
        count,
    ]
    assert {type(r) for r in results} == {type(x)}


OPTIONS: list[dict[str, Any]] = [
    {"nonfinite": "zero"},
    {"scale": 1024.0},
    {"eps": 1e-6},
    {"ord": 1.0},
    {"ord": 3.0},
    {"ord": math.inf},
]


@pytest.mark.needs("!host")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_wait(target: Target, options: dict[str, Any]) -> None:
    """Whatever is decided by an option is decided where the values are."""
    grads = make(target, [(np.array([1.0, np.nan, 3.0]), "float32"), (np.array([np.inf]), "float32")])
    clipped, norm = target.run(lambda g: target.api.clip_by_global_norm(g, 0.5, **options), grads)
    assert math.isnan(number(target, norm))
    assert all(np.all((x == 0) if "nonfinite" in options else np.isnan(x)) for x in read(target, clipped))


@pytest.mark.needs("deferred", "writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place_is_deferred(target: Target, function: str) -> None:
    """In place on lazy arrays: nothing is computed meanwhile, and the array is clipped when it is."""
    values = normal(5, "float32")
    x = target.make(values, "float32")
    IN_PLACE[function](target.api, [x], CLIPS)
    assert np.all(np.abs(target.read(x)) < np.abs(values))


def _accelerated(target: Any) -> list[Any]:
    """Return tensors on torch's "meta" device, which has no values: whoever asks for one gets an error."""
    return [target.xp.ones(shape, device="meta", dtype=target.xp.float32) for shape in ((3,), (2, 2), (0,), ())]


@pytest.mark.needs("torch")
@pytest.mark.parametrize("function", PURE)
def test_device_without_values(target: Target, function: str) -> None:
    """On a device that is not the host's no value is read, whatever would be clipped."""
    grads = _accelerated(target)
    out = PURE[function](target.api, grads, 1.0)
    assert [(x.shape, x.device.type) for x in out] == [(x.shape, "meta") for x in grads]


@pytest.mark.needs("torch")
@pytest.mark.parametrize("function", IN_PLACE)
def test_device_without_values_in_place(target: Target, function: str) -> None:
    """In place, the same."""
    IN_PLACE[function](target.api, _accelerated(target), 1.0)


@pytest.mark.needs("torch")
def test_norms_on_a_device_without_values(target: Target) -> None:
    """Norms stay on their device, for a threshold on the device and for policies too."""
    api, grads = target.api, _accelerated(target)
    limit = grads[0][0]
    norms = [api.global_norm(grads), api.leaf_norms(grads)[0], api.norm_partial(grads).norm()]
    norms.append(api.clip_by_global_norm(grads, limit, nonfinite="zero", scale=limit)[1])
    norms.append(api.clip_per_example(grads[1], limit)[1])
    assert {x.device.type for x in norms} == {"meta"}


@pytest.mark.needs("jax", "jit")
def test_under_transformations(target: Any) -> None:
    """Under vmap each row is clipped by itself; under scan, inside a loop."""
    jax = target.jax
    values = normal((3, 4), "float32")
    rows = target.make(values, "float32")
    by_row = jax.vmap(lambda g: target.api.clip_by_global_norm([g], 0.5)[0][0])(rows)
    _, in_loop = jax.lax.scan(lambda carry, g: (carry, target.api.clip_by_global_norm([g], 0.5)[0][0]), 0, rows)
    for got in (by_row, in_loop):
        for row, before in zip(target.read(got), values, strict=True):
            assert_times(row, before, coefficient(oracles.norm([before]), 0.5), "float32")


@pytest.mark.needs("jax", "jit")
def test_nothing_is_read_while_tracing(target: Any) -> None:
    """Shapes and dtypes alone are enough to trace every function."""
    jax = target.jax
    grads = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((3,), (2, 2), (0,), ())]
    for function in PURE:
        out = jax.eval_shape(lambda g, f=function: PURE[f](target.api, g, 0.5), grads)
        assert [(x.shape, x.dtype) for x in out] == [(x.shape, x.dtype) for x in grads]


@pytest.mark.needs("ndonnx")
@pytest.mark.parametrize("limit", [CLIPS, 0.5, LEAVES])
def test_graph_of_arguments(target: Any, limit: float) -> None:
    """Arrays without any values become a graph of ONNX operators, right for whatever is fed to it."""
    reference = pytest.importorskip("onnx.reference")
    ndx = target.xp
    x = ndx.argument(shape=(4,), dtype=ndx.float32)
    (clipped,), norm = target.api.clip_by_global_norm([x], limit)
    model = ndx.build({"x": x}, {"clipped": clipped, "norm": norm})
    for values in (normal(4, "float32"), np.zeros(4)):
        got, size = reference.ReferenceEvaluator(model).run(None, {"x": values.astype(np.float32)})
        assert_norm_of(float(size), [values], ["float32"])
        assert_times(got.astype(float), values, coefficient(oracles.norm([values]), limit), "float32")


def test_containers_without_arrays(target: Target) -> None:
    """None and empty containers need no namespace and no device."""
    for container in ([None], {"a": None}, []):
        assert trees.arrays(target.api.clip_by_global_norm(container, 1.0)[0]) == []
        assert read(target, target.api.clip_by_norm(container, 1.0)) == []

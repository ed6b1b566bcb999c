"""The golden vectors: inputs and exact results from ``golden.json``, which other languages' ports can read too."""

import math
from typing import Any

from gradclip.conformance import golden, make_golden, oracles
from gradclip.conformance.checks import assert_same_bits
from gradclip.conformance.golden import argument_of, values_of
from gradclip.conformance.helpers import number, read
from gradclip.conformance.oracles import Values, components, exact, ulp
from gradclip.conformance.targets import Target


def test_file_is_what_the_generator_makes() -> None:
    """The committed file is the generator's, to the byte."""
    assert golden.FILE.read_text() == make_golden.text()


def test_names_are_distinct() -> None:
    """Each vector can be named."""
    vectors = golden.vectors()
    names = [(v["function"], v["name"]) for v in vectors]
    assert len(set(names)) == len(names)
    assert {v["clause"] for v in vectors} >= {1, 2, 3, 4, 5, 6, 7, 9, 10, 15}


def test_vector(target: Target, vector: dict[str, Any]) -> None:
    """The norm is within its error and every element within its units in the last place."""
    dtype = vector["dtype"]
    options = {k: argument_of(v) for k, v in vector["arguments"].items()}
    made = [[target.make(values_of(x), dtype) for x in vector.get(k, [])] for k in ("leaves", "params")]
    given = made if "params" in vector else made[:1]
    got = target.run(lambda *trees: getattr(target.api, vector["function"])(*trees, **options), *given)
    if vector["function"] == "clip_by_global_norm":
        got, norm = got
        check_norm(number(target, norm), vector)
    elif vector["function"] == "global_norm":
        check_norm(number(target, got), vector)
    for after, right in zip(read(target, got) if "result" in vector else [], vector.get("result", []), strict=True):
        check_leaf(after, values_of(right), dtype, vector["ulps"])


def check_norm(got: float, vector: dict[str, Any]) -> None:
    """Assert that a norm is within the relative error that the vector allows."""
    right = float.fromhex(vector["norm"])
    if math.isnan(right) or math.isinf(right):
        assert got == right or (math.isnan(got) and math.isnan(right))
        return
    allowed = max(right * float.fromhex(vector["norm_error"]), float(ulp(exact(right), vector["norm_dtype"])) / 2)
    assert abs(got - right) <= allowed


def check_leaf(got: Values, right: Values, dtype: str, ulps: int) -> None:
    """Assert that a leaf's elements are within units in the last place of the exact ones."""
    assert got.shape == right.shape
    if ulps == 0:
        assert_same_bits(got, right)
        return
    for a, b in zip(components(got).tolist(), components(right).tolist(), strict=True):
        assert a == b or abs(exact(a) - exact(b)) <= ulps * oracles.ulp(exact(b), dtype)

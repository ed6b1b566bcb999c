"""The terms of a call as text and as a number; on_ranks_terms.py exchanges them."""

import pytest
import torch

from gradclip._decision import Rule
from gradclip.backends.torch.ops._terms import difference_of, number_of, terms_of
from gradclip.policies import ZClip


def test_the_number_tells_terms_apart_and_is_exact_in_float32():
    rules = [Rule(1.0), Rule(1.0, nonfinite="zero"), Rule(1.0, loss_scale=2.0), Rule(1.0, eps=1e-6)]
    some = [terms_of(rule) for rule in rules] + [terms_of(rules[0], policy=ZClip(max_norm=m)) for m in (1.0, 2.0)]
    numbers = list(map(number_of, some))
    assert len(set(numbers)) == len(some)
    assert all(float(torch.tensor(x, dtype=torch.float32)) == x for x in numbers)
    assert number_of({}) == 0.0


@pytest.mark.parametrize("scale", [65536, 65536.0, torch.tensor(65536.0), torch.tensor(65536.0, dtype=torch.float64)])
def test_numbers_and_tensors_of_one_value_are_the_same_term(scale):
    assert terms_of(Rule(1.0, loss_scale=scale)) == terms_of(Rule(None, loss_scale=65536.0))


def test_values_that_are_not_read():
    assert terms_of(Rule(1.0, loss_scale=torch.tensor(2.0, device="meta")))["scale"] == "a tensor on meta"
    one, other = object(), object()
    assert terms_of(Rule(1.0), policy=one) == terms_of(Rule(1.0), policy=other), "without their addresses"


def test_a_difference_names_the_ranks():
    told = {rank: terms_of(Rule(1.0, eps=0.5 if rank == 2 else 0.0)) for rank in range(3)}
    assert difference_of(told) == "eps is 0 on ranks 0, 1; 0.5 on rank 2"
    assert difference_of({0: {"part": "1 of 2"}, 4: {}}) == "part is 1 of 2 on rank 0; not known on rank 4"

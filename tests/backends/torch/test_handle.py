"""The handle of `attach`: it is replaced, copied, saved, printed and removed; its thresholds change."""

import copy
import gc
import io
import math
import pickle
import weakref

import pytest
import torch

from gradclip.backends.torch import Clipping, attach
from gradclip.backends.torch._handle import Clipping as Handle
from gradclip.backends.torch._step import Told
from gradclip.backends.torch._step_clipper import told_unless
from tests.backends.torch.wrappers import Shares, moved, sgd


def test_a_second_handle_replaces_the_first():
    p, optimizer = sgd()
    first = attach(optimizer, 5.0)
    second = attach(Shares(optimizer), 1.0)
    assert (first.attached_to(optimizer), second.attached_to(optimizer)) == (False, True)
    assert moved(p, optimizer.step) == pytest.approx(1)
    assert first.norm is None
    first.remove()
    assert moved(p, optimizer.step) == pytest.approx(1)
    second.remove()
    assert moved(p, optimizer.step) == pytest.approx(100)


def test_a_refused_second_call_leaves_the_first():
    p, optimizer = sgd()
    attach(optimizer, 1.0)
    with pytest.raises(ValueError, match="max_norm=-1"):
        attach(optimizer, -1.0)
    assert moved(p, optimizer.step) == pytest.approx(1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_an_optimizer_are_not_clipped_and_the_handle_knows(copied):
    _p, optimizer = sgd()
    clipping = attach(optimizer, 1.0)
    other = copied(optimizer)
    assert not clipping.attached_to(other)
    (q,) = other.param_groups[0]["params"]
    assert moved(q, other.step) == pytest.approx(100), "PyTorch does not copy hooks"
    again = attach(other, 1.0)
    assert moved(q, other.step) == pytest.approx(1)
    assert again.attached_to(other)
    assert clipping.attached_to(optimizer)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_a_handle_say_that_they_are_attached_to_nothing(copied):
    p, optimizer = sgd()
    clipping = attach(optimizer, 1.0, max_value=60.0, eps=1e-6)
    moved(p, optimizer.step)
    with pytest.warns(UserWarning, match=r"a copy of a Clipping is attached to no optimizer.*call attach\(optimizer"):
        other = copied(clipping)
    assert not other.attached_to(optimizer)
    assert (other.max_norm, other.max_value, other.norm) == (1.0, 60.0, clipping.norm)
    other.remove()
    assert clipping.attached_to(optimizer)
    clipping.remove()
    assert repr(copied(clipping)) == repr(other)


def test_a_handle_is_saved_with_a_module_that_holds_it():
    _p, optimizer = sgd()
    module = torch.nn.Linear(1, 1)
    module.clipping = attach(optimizer, 1.0)
    optimizer.step()
    torch.save(module, file := io.BytesIO())
    file.seek(0)
    with pytest.warns(UserWarning, match="attached to no optimizer"):
        loaded = torch.load(file, weights_only=False)
    assert loaded.clipping.norm == 100


def test_what_a_handle_says_of_itself():
    p, optimizer = sgd()
    clipping = attach(optimizer, max_norm=1.0)
    assert repr(clipping) == "Clipping(max_norm=1.0, attached to SGD; no step yet)"
    optimizer.step()
    done = "last step: norm=100, coefficient=0.01, clipped=True)"
    assert repr(clipping) == f"Clipping(max_norm=1.0, attached to SGD; {done}"
    clipping.remove()
    assert repr(clipping) == f"Clipping(max_norm=1.0, attached to no optimizer; {done}"
    clipping = attach(optimizer, max_value=math.inf, per_group=True)
    p.grad.fill_(math.nan)
    optimizer.step()
    assert repr(clipping).endswith("norm=[nan], coefficient=[1], clipped=[False])")


def test_gradients_without_values():
    p = torch.nn.Parameter(torch.zeros(4, device="meta"))
    p.grad = torch.zeros(4, device="meta")
    optimizer = torch.optim.SGD([p], lr=1.0)
    clipping = attach(optimizer, 1.0)
    optimizer.step()
    assert "norm=unknown" in repr(clipping)


def test_a_handle_keeps_no_optimizer_alive():
    _, optimizer = sgd()
    clipping, gone = attach(optimizer, 1.0), weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    assert "attached to no optimizer" in repr(clipping)
    clipping.remove()


@pytest.mark.parametrize("set_", ["max_norm", "max_value"])
def test_thresholds_that_change(set_):
    limit = torch.tensor(10.0)
    p, optimizer = sgd(n=1)
    clipping = attach(optimizer, **{set_: limit})
    assert moved(p, optimizer.step) == 10
    limit.fill_(1.0)
    assert moved(p, optimizer.step) == 1
    limit.fill_(-1.0)
    with pytest.raises(ValueError, match=f"{set_}=tensor"):
        optimizer.step()
    for step in range(1, 4):
        setattr(clipping, set_, 1.0 / step)
        assert moved(p, optimizer.step) == pytest.approx(1.0 / step)
    setattr(clipping, set_, None)
    assert moved(p, optimizer.step) == 50
    with pytest.raises(ValueError, match=f"{set_}=-1"):
        setattr(clipping, set_, -1)
    with pytest.raises(TypeError, match=f"{set_}=.* is a list"):
        setattr(clipping, set_, [1.0])


def test_attributes_that_would_do_nothing_cannot_be_set():
    clipping = attach(sgd()[1], 1.0)
    for name in ("norm_type", "threshold", "eps", "nonfinite"):
        with pytest.raises(AttributeError):
            setattr(clipping, name, 1.0)


def test_the_type_is_public():
    assert Clipping is Handle


def test_on_a_device_a_skipped_step_keeps_what_was_told():
    new = Told(torch.tensor(math.inf), torch.tensor(0.0), torch.tensor(True))
    skipped, taken = torch.tensor(True), torch.tensor(False)
    assert told_unless(taken, None, new) == new
    norm, coefficient, clipped = told_unless(skipped, None, new)[:3]
    assert (norm.isnan(), coefficient, clipped) == (True, 1, False), "no step was taken yet"
    before = Told(torch.tensor(3.0), torch.tensor(0.5), torch.tensor(True))
    assert told_unless(skipped, before, new)[:3] == (3, 0.5, True)


def test_a_group_that_comes_between_steps_of_a_scaler_on_a_device():
    before = Told(torch.ones(2), torch.ones(2), torch.zeros(2, dtype=torch.bool))
    new = Told(torch.ones(3), torch.ones(3), torch.zeros(3, dtype=torch.bool))
    assert told_unless(torch.tensor(False), before, new).norm.tolist() == [1, 1, 1]
    assert told_unless(torch.tensor(True), before, new).norm.isnan().all()

"""attach clips or refuses: wrappers, copies, second handles, thresholds that change, steps that a scaler skips."""

import copy
import gc
import io
import math
import pickle
import warnings
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch

from gradclip.backends.torch import Clipping, attach, clip_grad_norm_
from gradclip.backends.torch._handle import Clipping as Handle
from gradclip.backends.torch._step import Told, together
from tests.backends.torch.helpers import normal, param


def sgd(value=50.0, n=4, **kwargs):
    """Return a parameter of zeros with a gradient, and a step of which moves by the gradient."""
    p = param(torch.full((n,), value))
    return p, torch.optim.SGD([p], lr=1.0, **kwargs)


def moved(p, step, value=50.0):
    """Return how far a step moves a parameter whose gradient has this value in each element."""
    before = p.detach().clone()
    p.grad = torch.full_like(p, value)
    step()
    return float((p - before).detach().norm())


class Bare(torch.optim.Optimizer):
    """A wrapper that never calls Optimizer.__init__: no hook that is registered with it is ever run."""

    def __init__(self, inner, name):
        setattr(self, name, inner)
        self._inner = inner if name[0] != "_" else getattr(self, name)
        self.param_groups = inner.param_groups

    def step(self, closure=None):
        return self._inner.step(closure)


class WithHooks(Bare):
    """As timm's Lookahead: hooks can be registered."""

    def __init__(self, inner, name):
        super().__init__(inner, name)
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()


class Shares(torch.optim.SGD):
    """As Fabric's: it has all that the inner optimizer has, its hooks too."""

    def __init__(self, inner):
        self.__dict__.update(inner.__dict__)
        self._inner = inner

    def step(self, closure=None):
        return self._inner.step(closure)


class Shows(torch.optim.Optimizer):
    """The inner optimizer is in a property."""

    def __init__(self, inner):
        self._inner = inner

    @property
    def optimizer(self):
        return self._inner

    @property
    def param_groups(self):
        return self._inner.param_groups

    def step(self, closure=None):
        return self._inner.step(closure)


WRAPPERS = {
    "optimizer": lambda o: Bare(o, "optimizer"),
    "base_optimizer": lambda o: Bare(o, "base_optimizer"),
    "with hooks": lambda o: WithHooks(o, "base"),
    "shared": Shares,
    "property": Shows,
    "twice": lambda o: Bare(Shares(o), "original_optimizer"),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("fused", [False, True])
def test_wrappers_are_clipped(wrap, fused):
    p, inner = sgd(fused=fused)
    optimizer = wrap(inner)
    clipping = attach(optimizer, 1.0)
    assert moved(p, optimizer.step) == pytest.approx(1)
    assert float(clipping.norm) == 100
    assert clipping.attached_to(optimizer)
    assert clipping.attached_to(inner)
    clipping.remove()
    assert not clipping.attached_to(optimizer)
    assert moved(p, optimizer.step) == pytest.approx(100)


def pair():
    _p, first = sgd()
    _q, second = sgd()
    optimizer = Bare(first, "optimizer")
    optimizer.second = second
    return optimizer


def partly():
    optimizer = Bare(sgd()[1], "optimizer")
    optimizer.param_groups = [*optimizer.param_groups, {"params": [torch.nn.Parameter(torch.zeros(2))]}]
    return optimizer


class Alone(torch.optim.Optimizer):
    def __init__(self):
        self.param_groups = []

    def step(self):
        pass


def circle():
    optimizer = Alone()
    optimizer.optimizer = optimizer
    return optimizer


REFUSED = {
    "private": (lambda: WithHooks(sgd()[1], "_base_optimizer"), r"a \S+WithHooks whose step\(\) runs no hooks"),
    "two": (pair, r"a \S+Bare whose step\(\) runs no hooks"),
    "a part of the parameters": (partly, r"\(its \.optimizer is one\)"),
    "none": (Alone, r"a \S+Alone whose step\(\) runs no hooks.* Attach to the optimizer that it wraps"),
    "itself": (circle, "runs no hooks"),
    "a scheduler": (lambda: torch.optim.lr_scheduler.ConstantLR(sgd()[1]), r"\(its \.optimizer is one\)"),
    "a list": (lambda: [sgd()[1]], r"optimizer is a list, expected a torch\.optim\.Optimizer"),
    "nothing": (lambda: None, "optimizer is None, expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_clipped_is_refused(case):
    make, words = REFUSED[case]
    optimizer = make()
    with pytest.raises(TypeError, match=words):
        attach(optimizer, 1.0)


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


@pytest.mark.parametrize("eps", [1e-6, 10.0, torch.tensor(10.0)])
@pytest.mark.parametrize("fused", [False, True])
def test_eps(eps, fused):
    p, optimizer = sgd(fused=fused)
    q, other = sgd()
    clipping = attach(optimizer, 1.0, eps=eps)
    optimizer.step()
    clip_grad_norm_(q, 1.0, eps=float(eps))
    other.step()
    assert torch.equal(p, q)
    assert float(clipping.coefficient) == pytest.approx(1 / (100 + float(eps)))
    with pytest.raises(ValueError, match="eps=-1"):
        attach(optimizer, 1.0, eps=-1.0)


# ---- torch.amp.GradScaler --------------------------------------------------------------------------------------------

OVERFLOWS = ["propagate", "error", "zero"]


def scaled_step(p, optimizer, scaler, value, unscale):
    optimizer.zero_grad()
    scaler.scale((p * value).sum()).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("nonfinite", OVERFLOWS)
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("max_value", [None, 40.0])
def test_a_step_that_the_scaler_skips_is_told_the_same_fused_or_not(nonfinite, unscale, max_value):
    told = []
    for fused in (False, True):
        p, optimizer = sgd(fused=fused)
        clipping = attach(optimizer, 1.0, nonfinite=nonfinite, max_value=max_value)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        seen = []
        for value in (math.inf, 50.0, math.nan, 0.01, math.inf):
            scaled_step(p, optimizer, scaler, value, unscale)
            seen.append([clipping.norm, clipping.coefficient, clipping.clipped, scaler.get_scale(), p.tolist()])
        told.append(seen)
    assert told[0] == told[1]
    assert told[0][0][0] is None, "no step was taken yet"
    assert told[0][2][:3] == told[0][1][:3], "as it was"
    assert told[0][1][0] == (100 if max_value is None else 80)


@pytest.mark.parametrize("nonfinite", ["error", "zero"])
def test_what_the_scaler_did_not_see_is_not_its_own(nonfinite):
    p, optimizer = sgd(fused=True)
    clipping = attach(optimizer, 1.0, nonfinite=nonfinite)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    p.grad[0] = math.nan
    if nonfinite == "error":
        with pytest.raises(FloatingPointError, match="NaN or inf"):
            scaler.step(optimizer)
    else:
        scaler.step(optimizer)
        assert clipping.clipped
        assert clipping.coefficient == 0
    assert not p.any()


def test_scaled_gradients_are_clipped_by_their_unscaled_norm_at_any_magnitude():
    p, optimizer = sgd(fused=True)
    clipping = attach(optimizer, 1e30, eps=1.0, max_value=3e33)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    scaled_step(p, optimizer, scaler, 2e33, unscale=False)
    assert float(clipping.norm) == pytest.approx(4e33), "four times 1.3e38 has no norm in float32"
    assert (p.detach() / 1e30).tolist() == pytest.approx([-0.5] * 4)
    scaled_step(p, optimizer, scaler, 5e33, unscale=False)
    assert float(clipping.norm) == pytest.approx(6e33)


def test_an_optimizer_that_takes_the_scaler_itself_is_refused():
    class Old(torch.optim.SGD):
        _step_supports_amp_scaling = True

        @torch.no_grad()
        def step(self, closure=None, *, grad_scaler=None):
            raise AssertionError

    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = Old([p])
    attach(optimizer, 1.0)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    words = r"Old\.step\(\) takes the GradScaler itself.*call scaler\.unscale_\(optimizer\) and clip_grad_norm_\(\)"
    with pytest.warns(FutureWarning, match="GradScaler is going to stop"), pytest.raises(TypeError, match=words):
        scaler.step(optimizer)


def test_on_a_device_a_skipped_step_keeps_what_was_told():
    new = Told(torch.tensor(math.inf), torch.tensor(0.0), torch.tensor(True))
    handle = Handle(1.0, None, 2.0, "propagate", 0.0, False)
    skipped, taken = torch.tensor(True), torch.tensor(False)
    assert handle._unless(taken, new) == new
    norm, coefficient, clipped = handle._unless(skipped, new)
    assert (norm.isnan(), coefficient, clipped) == (True, 1, False), "no step was taken yet"
    handle.norm, handle.coefficient, handle.clipped = torch.tensor(3.0), torch.tensor(0.5), torch.tensor(True)
    assert handle._unless(skipped, new) == (3, 0.5, True)


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_groups_of_any_kind():
    kinds = {
        "none": None,
        "double": torch.full((2,), 3e200, dtype=torch.float64),
        "half": torch.full((2,), 30000.0, dtype=torch.float16),
        "complex": torch.full((2,), 3 + 4j),
        "empty": torch.zeros(0),
    }
    params = [torch.nn.Parameter(torch.zeros(2, dtype=torch.float32 if g is None else g.dtype)) for g in kinds.values()]
    params[-1] = torch.nn.Parameter(torch.zeros(0))
    for p, g in zip(params, kinds.values(), strict=True):
        p.grad = g
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=0.0)
    clipping = attach(optimizer, 1.0, per_group=True)
    optimizer.step()
    assert clipping.norm.dtype == torch.float64
    assert clipping.norm.tolist() == pytest.approx([0, 3e200 * 2**0.5, 30000 * 2**0.5, 50**0.5, 0])
    assert clipping.clipped.tolist() == [False, True, True, True, False]
    assert [float(p.grad.norm()) for p in params[1:]] == pytest.approx([1, 1, 1, 0], rel=1e-3)


def test_norms_of_several_devices_are_told_on_the_first():
    here = Told(torch.tensor(1.0), torch.tensor(0.5), torch.tensor(True))
    there = Told(*(torch.empty_like(x, device="meta") for x in here))
    assert [x.device.type for x in together([there, here])] == ["meta"] * 3
    assert [x.tolist() for x in together([here, here])] == [[1, 1], [0.5, 0.5], [True, True]]


@pytest.mark.parametrize("bound", [None, 1.0])
def test_nothing_is_written_before_the_last_group_was_checked(bound):
    params = [param(torch.full((2,), 50.0)), param(torch.tensor([50.0, math.inf]))]
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=1.0)
    attach(optimizer, 1.0, nonfinite="error", per_group=True, max_value=bound)
    with pytest.raises(FloatingPointError, match=r"optimizer's param_groups\[1\]\[0\]\.grad"):
        optimizer.step()
    assert params[0].grad.tolist() == [50, 50]


@pytest.mark.parametrize("bound", [None, 1.0])
def test_nothing_is_written_if_a_gradient_of_the_last_group_cannot_be(bound):
    params = [param(torch.full((2,), 50.0)), torch.nn.Parameter(torch.zeros(2, 2))]
    params[1].grad = torch.as_strided(torch.ones(3), (2, 2), (1, 1))
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=1.0)
    attach(optimizer, 1.0, per_group=True, max_value=bound)
    with pytest.raises(ValueError, match="overlaps itself in memory"):
        optimizer.step()
    assert params[0].grad.tolist() == [50, 50]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_zero_is_decided_before_bounds_hide_what_overflowed(bad):
    p, optimizer = sgd()
    clipping = attach(optimizer, 1.0, nonfinite="zero", max_value=1.0)
    p.grad[1] = bad
    optimizer.step()
    assert not p.any()
    assert (clipping.coefficient, clipping.clipped) == (0, True)
    assert not clipping.norm.isfinite()


def test_the_type_is_public():
    assert Clipping is Handle


# ---- torch.compile ---------------------------------------------------------------------------------------------------

THRESHOLDS = [1.0, torch.tensor(1.0), torch.tensor([1.0]), torch.tensor(1), np.float32(1), np.array(1.0)]


@pytest.mark.parametrize("limit", THRESHOLDS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("per_group", [False, True])
def test_a_compiled_step_has_clipping_in_its_graph(limit, per_group):
    torch.compiler.reset()
    params = [param(normal(4, 4, seed=i) * 50) for i in range(2)]
    optimizer = torch.optim.Muon([{"params": [p]} for p in params], lr=1.0)
    clipping = attach(optimizer, limit, per_group=per_group)
    whole = not isinstance(limit, np.ndarray)  # of which the graph knows nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = torch.compile(lambda: optimizer.step(), backend="aot_eager", fullgraph=whole)
        step()
        step()
    norms = [float(p.grad.norm()) for p in params] if per_group else [math.hypot(*(p.grad.norm() for p in params))]
    assert norms == pytest.approx([1.0] * len(norms))
    assert clipping.norm.reshape(-1).tolist() == pytest.approx(norms), "of the second step"
    assert clipping.coefficient.reshape(-1).tolist() == pytest.approx([1.0] * len(norms))
    clipping.max_norm = 0.5
    step()
    assert clipping.clipped.all()
    assert float(params[0].grad.norm()) < 0.51


# ---- what else an optimizer may hold ---------------------------------------------------------------------------------


def test_parameters_without_gradients_and_groups_that_come_later():
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([p], lr=1.0)
    clipping = attach(optimizer, 1.0)
    optimizer.step()
    assert (clipping.norm, clipping.coefficient, clipping.clipped) == (0, 1, False)
    q = param(torch.tensor([30.0, 40.0]))
    optimizer.add_param_group({"params": [q]})
    optimizer.step()
    assert clipping.norm == 50
    assert q.tolist() == pytest.approx([-0.6, -0.8])


def test_sparse_gradients():
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters())
    clipping = attach(optimizer, 1.0)
    embedding(torch.tensor([1, 1, 2])).sum().mul(50).backward()
    optimizer.step()
    assert float(clipping.norm) == pytest.approx(math.sqrt(2 * (100**2 + 50**2)))
    assert float(embedding.weight.grad.coalesce().values().norm()) == pytest.approx(1)


@pytest.mark.parametrize("scale", [torch.tensor(1024.0), torch.tensor([1024.0]), None])
def test_a_loss_scale_that_the_user_sets(scale):
    p, optimizer = sgd(50.0 * (1 if scale is None else 1024), fused=True)
    clipping = attach(optimizer, 1.0)
    optimizer.grad_scale = scale
    optimizer.step()
    assert clipping.norm == 100
    assert float(p.detach().norm()) == pytest.approx(1)
    assert optimizer.grad_scale is scale


def test_gradients_without_values():
    p = torch.nn.Parameter(torch.zeros(4, device="meta"))
    p.grad = torch.zeros(4, device="meta")
    optimizer = torch.optim.SGD([p], lr=1.0)
    clipping = attach(optimizer, 1.0)
    optimizer.step()
    assert "norm=unknown" in repr(clipping)


class Twice(torch.optim.SGD):
    """Its step calls its parent's, and PyTorch runs the hooks in both."""

    def step(self, closure=None):
        return super().step(closure)


class Named(torch.optim.SGD):
    """Its closure has another name and another place."""

    def step(self, scale=1.0, loss_fn=None):
        return super().step(loss_fn)


@pytest.mark.parametrize("fused", [False, True])
def test_hooks_that_run_twice_in_a_step_clip_once(fused):
    sgd()
    p = param(torch.full((4,), 50.0))
    optimizer = Twice([p], lr=1.0, fused=fused)
    clipping = attach(optimizer, 1.0, eps=100.0)
    assert moved(p, optimizer.step) == pytest.approx(0.5)
    assert (float(clipping.norm), bool(clipping.clipped)) == (100, True)
    assert moved(p, optimizer.step) == pytest.approx(0.5), "and in the next step again"

    def closure():
        p.grad = torch.full((4,), 50.0)

    assert moved(p, lambda: optimizer.step(closure)) == pytest.approx(0.5)
    assert moved(p, lambda: optimizer.step(closure=closure)) == pytest.approx(0.5)
    assert float(clipping.norm) == 100


def test_a_wrapper_whose_class_runs_hooks_later_is_clipped_once():
    class Later(Bare):  # classes of their own, for PyTorch changes them
        pass

    class SharesLater(Shares):
        def step(self, closure=None):
            return self._inner.step(closure)

    p, inner = sgd()
    wrapper = Later(inner, "optimizer")
    wrapper.defaults = {}
    first = attach(wrapper, 1.0)
    wrapper.__setstate__({})
    second = attach(wrapper, 10.0)
    assert moved(p, wrapper.step) == pytest.approx(10)
    assert not first.attached_to(inner)
    second.remove()
    shared = SharesLater(inner)
    attach(shared, 1.0, eps=100.0)
    shared.__setstate__({})
    for step in (shared.step, inner.step, shared.step):
        assert moved(p, step) == pytest.approx(0.5)
    attach(SharesLater(inner), 1.0, eps=100.0)  # which is gone at once
    assert moved(p, inner.step) == pytest.approx(0.5)


def test_closures_of_any_name():
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = Named([p], lr=1.0)
    clipping = attach(optimizer, 1.0)

    def closure():
        p.grad = torch.full((4,), 50.0)

    optimizer.step(loss_fn=closure)
    optimizer.step(2.0, closure)
    assert float(p.detach().norm()) == pytest.approx(2)
    assert clipping.norm == 100


def test_a_group_that_comes_between_steps_of_a_scaler_on_a_device():
    handle = Handle(1.0, None, 2.0, "propagate", 0.0, True)
    handle.norm, handle.coefficient, handle.clipped = torch.ones(2), torch.ones(2), torch.zeros(2, dtype=torch.bool)
    new = Told(torch.ones(3), torch.ones(3), torch.zeros(3, dtype=torch.bool))
    assert handle._unless(torch.tensor(False), new).norm.tolist() == [1, 1, 1]
    assert handle._unless(torch.tensor(True), new).norm.isnan().all()

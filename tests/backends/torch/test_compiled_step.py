"""Under torch.compile, an optimizer's step has the clipping in its graph."""

import math
import warnings

import numpy as np
import pytest
import torch

from gradclip.backends.torch import attach
from tests.backends.torch.helpers import normal, param

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

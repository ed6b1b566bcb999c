"""One of the two ranks that `rows_ranks` starts: it reads what to do, line by line.

For each line it writes two norms, and the seconds of CPU time that it took.
"""

import os
import sys
import time
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.sets import GradientSet, values
from gradclip.backends.torch import clip_grad_norm_, get_total_norm


def parameters(leaves: list[Tensor], kind: str) -> list[torch.nn.Parameter]:
    """Return this rank's parameters: halves of each as DTensors, or every second one as it is."""
    if kind != "DTensor":
        leaves = leaves[distributed.get_rank() :: 2]
    else:
        mesh: Any = init_device_mesh("cpu", (2,))
        leaves = [distribute_tensor(x, mesh, [Shard(0)]) for x in leaves]
    made = [torch.nn.Parameter(torch.zeros_like(x)) for x in leaves]
    for p, g in zip(made, leaves, strict=True):
        p.grad = g
    return made


class Sent(TorchDispatchMode):
    """Counts collectives, and the bytes that this rank puts into them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch gives it no types
        self.collectives = self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does with its parts comes here too
        if func.namespace in ("c10d", "_c10d_functional") and "wait" not in func.__name__:
            self.collectives += 1
            self.nbytes += min(
                x.nbytes for x in tree_leaves(args) if isinstance(x, Tensor)
            )  # a gather's output is more
        return func(*args, **(kwargs or {}))


def main(kind: str, number: int) -> None:
    """Do what the lines of the standard input say, until it ends."""
    leaves = [torch.from_numpy(x) for x in values(GradientSet("", ((64,),) * number), "float32")]
    mine = parameters(leaves, kind)
    grads = [p.grad for p in mine if p.grad is not None]
    kept = [g.clone() for g in grads]
    group: Any = None if kind == "DTensor" else distributed.group.WORLD
    norm = torch.tensor(0.0)
    calls: dict[str, Any] = {
        "ours": lambda most: clip_grad_norm_(mine, most, group=group),
        "torch": lambda most: torch.nn.utils.clip_grad_norm_(mine, most),
    }
    for line in sys.stdin:
        what, most = line.split()
        before = after = 0.0
        start = time.process_time()
        if what == "restore":
            for g, x in zip(grads, kept, strict=True):
                g.copy_(x)
        elif what == "check":
            whole: Any = norm
            before = float(whole.full_tensor() if hasattr(whole, "full_tensor") else whole)
            after = float(get_total_norm(grads, group=group))
        elif what.startswith("count-"):
            with Sent() as sent:
                calls[what.removeprefix("count-")](float(most))
            before, after = sent.collectives, sent.nbytes
        else:
            norm = calls[what](float(most))
        print(before, after, time.process_time() - start, flush=True)


if __name__ == "__main__":
    port, of, count, rank = sys.argv[1:]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, WORLD_SIZE="2", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    main(of, int(count))
    os._exit(0)  # without the shutdown of the process group, which may wait for the other rank

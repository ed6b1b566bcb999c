"""How many threads NumPy's linear algebra may use."""

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import cast


def one_thread() -> AbstractContextManager[object]:
    """Keep NumPy's BLAS to one thread while the context lasts, if threadpoolctl is there to do it.

    The products of a small recurrent network are too small to share: a second core gains a fifth, while on a busy
    machine, or in a container that sees more cores than it may use, threads that wait for each other in a spin make
    a step up to thirty times slower.
    """
    try:
        controller = import_module("threadpoolctl")
    except ModuleNotFoundError:
        return nullcontext()
    return cast("AbstractContextManager[object]", controller.threadpool_limits(limits=1))

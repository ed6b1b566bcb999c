"""Limits the threads of NumPy's linear algebra."""

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import cast


def one_thread() -> AbstractContextManager[object]:
    """Limit NumPy's BLAS to one thread within the context, if threadpoolctl is installed.

    The matrix products of a small recurrent network are too small for several threads: a second core makes a step a
    fifth faster. On a busy machine, or in a container that sees more cores than it may use, threads that spin while
    they wait for each other make a step up to thirty times slower.
    """
    try:
        controller = import_module("threadpoolctl")
    except ModuleNotFoundError:
        return nullcontext()
    return cast("AbstractContextManager[object]", controller.threadpool_limits(limits=1))

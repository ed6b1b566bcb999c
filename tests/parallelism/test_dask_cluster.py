"""Dask on several processes: one pass over the chunks, tasks in proportion to them, and nothing gathered."""

import time

import numpy as np
import pytest

import gradclip

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed", reason="dask's distributed is not installed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made


def gradients(chunks):
    """Return two arrays, each of so many chunks, and the values of the first."""
    values = np.random.default_rng(0).standard_normal((chunks * 4, 8))
    return {"w": da.from_array(values, chunks=(4, 8)), "b": da.from_array(values[:, 0] * 1e3, chunks=4)}, values


@pytest.mark.usefixtures("client")
def test_one_pass_gives_norm_and_gradients():
    grads, values = gradients(16)
    want = float(np.sqrt((values**2).sum() + (values[:, 0] ** 2).sum() * 1e6))
    clipped, norm = gradclip.clip_by_global_norm(grads, 1.0)
    clipped, norm = dask.compute(clipped, norm)
    assert float(norm) == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(clipped["w"], values / want, rtol=1e-12)
    np.testing.assert_allclose(clipped["b"], values[:, 0] * 1e3 / want, rtol=1e-12)


def test_tasks_grow_with_the_chunks_and_none_holds_all(client):
    counts = []
    for chunks in (16, 32, 64):
        grads, _ = gradients(chunks)
        clipped, norm = gradclip.clip_by_global_norm(grads, 1.0)
        counts.append(len({**dict(norm.__dask_graph__()), **dict(clipped["w"].__dask_graph__())}))
        shapes = {block for array in clipped.values() for axis in array.chunks for block in axis}
        assert max(shapes) <= 8, "the chunks are those of the gradients"
    assert counts[2] - counts[1] <= 2.2 * (counts[1] - counts[0]), "linear in the number of chunks"


def forget(client):
    """Wait until the cluster has forgotten what it computed.

    Before, it may take a task of the next graph for the one of the same name, with which Dask fused the reading of the
    chunk; then it reads the chunk once more. It does so with Dask's own ``x / x.sum()`` too.
    """
    deadline = time.monotonic() + 30
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def counted(client, topic, value=1.0):
    """Return an array of four chunks, and a function that returns how many of them were read until then."""

    def block(x):
        distributed.get_worker().log_event(topic, 1)
        return x

    x = da.full((16, 4), value, chunks=(4, 4)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
    return x, lambda: len(client.get_events(topic) or ())


CALLS = {
    "global norm": lambda x: gradclip.clip_by_global_norm([x], 1.0),
    "each norm": lambda x: gradclip.clip_by_norm([x], 1.0),
    "each root mean square": lambda x: gradclip.clip_by_rms([x], 0.5),
    "units": lambda x: gradclip.adaptive_grad_clip([x], [da.ones((16, 4), chunks=(4, 4))], 0.1),
    "examples": lambda x: gradclip.clip_per_example([x], 1.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_computed_together_is_read_once(client, name):
    source, reads = counted(client, name, 2.0)
    dask.compute(CALLS[name](source))
    assert reads() == 4


def test_a_client_computes_together_what_is_in_one_list(client):
    """It takes arrays in a list within a list for another computation, so that it reads the chunks twice."""
    source, reads = counted(client, "one list", 3.0)
    clipped, norm = gradclip.clip_by_global_norm([source], 1.0)
    client.gather(client.compute([*clipped, norm]))
    assert reads() == 4


def test_what_is_persisted_is_read_once(client):
    """Computed apart, norm and gradients read the gradients twice; ``persist`` keeps the chunks on the workers."""
    source, reads = counted(client, "blocks")
    clipped, norm = gradclip.clip_by_global_norm([source], 1.0)
    norm.compute()
    forget(client)
    clipped[0].compute()
    assert reads() == 8, "four chunks, twice"
    kept = source.persist()
    distributed.wait(kept)
    clipped, norm = gradclip.clip_by_global_norm([kept], 1.0)
    norm.compute()
    clipped[0].compute()
    assert reads() == 12, "four chunks, once more"


def test_operations_are_in_proportion_to_the_arrays():
    layers = [_layers(number) for number in (8, 16, 32)]
    assert layers[2] - layers[1] <= 2.2 * (layers[1] - layers[0]), "linear in the number of arrays"


def _layers(number):
    arrays = [da.full((64, 64), float(i), chunks=(32, 64)) for i in range(number)]  # equal ones would be one
    clipped, norm = gradclip.clip_by_global_norm(arrays, 1.0)
    return len({name for x in (*clipped, norm) for name in x.__dask_graph__().layers})

"""What each of several JAX processes does; test_recipes.py starts them."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradclip.backends import jax as ours
from tests.parallelism.recipe import SCALES, assert_clipped, part, recipe


def by_hand(rank: int, world: int) -> None:
    """Each process has arrays of its own."""
    for scale in SCALES:
        clipped, norm = recipe("clip_over_hosts")([jnp.asarray(x) for x in part(rank, scale)], scale)
        assert_clipped(norm, clipped, rank, world, scale)


def one_program(rank: int, world: int) -> None:
    """A global array has a part in each process: XLA adds the collective, and nothing is to be done by hand."""
    mesh = jax.make_mesh((world,), ("data",))
    rows = np.arange(1.0, 1.0 + 4 * world, dtype=np.float32).reshape(world, 4)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    whole = jax.make_array_from_process_local_data(sharding, rows[rank : rank + 1])
    clipped, norm = jax.jit(lambda g: ours.clip_by_global_norm({"w": g}, 1.0))(whole)
    want = float(np.sqrt((rows.astype(np.float64) ** 2).sum()))
    np.testing.assert_allclose(float(norm), want, rtol=1e-6)
    np.testing.assert_allclose(clipped["w"].addressable_data(0), rows[rank : rank + 1] / want, rtol=1e-6)


if __name__ == "__main__":
    this, number = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{os.environ['MASTER_PORT']}", number, this)
    assert jax.process_count() == number
    for check in (by_hand, one_program):
        check(this, number)
        print("passed", check.__name__, flush=True)

"""What each process of mpiexec does; test_recipes.py starts it."""

from mpi4py import MPI

from tests.parallelism.recipe import SCALES, assert_clipped, part, recipe

if __name__ == "__main__":
    rank, world = MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
    for scale in SCALES:
        mine = part(rank, scale)
        norm = recipe("clip_over_mpi_")(mine, scale)
        assert_clipped(norm, mine, rank, world, scale)
    MPI.COMM_WORLD.Barrier()  # mpiexec fails if an assertion failed on any rank
    if rank == 0:
        print(f"passed on {world}", flush=True)

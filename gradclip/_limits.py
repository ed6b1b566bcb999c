"""Numbers that were chosen for speed or by a measurement, each with its unit and with what it was chosen by.

Adapters have such a module of their own. The kernels in C have theirs in the source.
"""

HOST_CHUNK_NUMEL = 1 << 16
"""Elements of a chunk on a host, half as many complex ones: 512 KiB in float64, which stays in the second-level cache.

Norm of 8 million float32 elements in NumPy, one core of an EPYC: 45 ms in chunks of 2^14 elements, 21 in 2^16, 18 in
2^18, 50 in 2^20, 89 without chunks. Multiplication in place: 30, 22, 20, 43 and 67 ms. From 2^16 to 2^18 the time is
the same; the smallest of these needs the least memory.
"""

DEVICE_CHUNK_NUMEL = 1 << 20
"""Elements of a chunk on an accelerator, which is 8 MiB in float64. Not measured: each chunk costs several launches."""

SUM_BLOCK_NUMEL = 128
"""Elements that are added one after the other; the sums of these blocks are added in a tree.

It bounds the error, by 127 roundings, for namespaces whose sum is not pairwise. NumPy's pairwise sum has the same.
"""

MLX_SUM_BLOCK_NUMEL = 8
"""The same for MLX. The error of a float32 sum was 4e-6 in blocks of 128, above 1e-6 in blocks of 16.

20 million elements on a CPU: 24 ms in blocks of 8, 13 in 16, 35 in 4; MLX's own sum 25.
"""

MOST_THREADS = 4
"""The most threads that a call on NumPy's arrays uses: more of them do not read memory faster. Not varied."""

OVERLAP_WORK = 100_000
"""The work that NumPy may do to decide whether two strided arrays share an element. Beyond it, they are refused.

Of 3,000 random pairs with 2 to 5 axes, the longest decision took 6 ms.
"""

JOIN_UP_TO_NUMEL = 1 << 18
"""NumPy arrays of up to so many elements in all are laid end to end and read as one.

1,000 arrays of 64 elements are read in a third of the time. Beyond, a copy takes longer than to find each address.
"""

JOIN_MEAN_NUMEL = 1 << 10
"""NumPy arrays of up to so many elements each, on average, are laid end to end: see `JOIN_UP_TO_NUMEL`."""

MERGE_AT_ONCE = 64
"""How many partial norms one task of Dask merges. The results of such tasks are merged in the same way.

Each is two numbers, so a task may take many. Dask's own number, 4, is for arrays; it makes a higher tree.
"""

PIECE_NBYTES = 1 << 14
"""The least size in bytes of a piece, the work of one block of threads on a GPU.

It is four accesses of 16 bytes for each of 256 threads, so that small leaves become many pieces.
"""

MOST_PIECES = 1 << 11
"""Where there would be more pieces, they grow, up to `LARGEST_PIECE_NBYTES`.

Norm of GPT-2-small's gradients on an H200: 145 µs with at most 16,384 pieces, 133 with 8,192, 128 with 4,096, 124 with
2,048, 123 with 1,024. One block of threads has to merge the partial norms of all pieces.
"""

LARGEST_PIECE_NBYTES = 1 << 20
"""The largest size in bytes of a piece, which bounds the rounding error of its sum.

Each of 256 threads has four sums: one adds at most 128 elements of float64, 256 of float32 and 512 of float16.
"""

KEPT_TABLES = 32
"""How many tables of pieces are kept on a device: one for each set of arrays that was clipped last.

Not measured: it is more than the sets that a training loop has, and 32 tables of 2,048 pieces take 2.6 MB.
"""

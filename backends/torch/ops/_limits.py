"""Numbers that were chosen for speed or by a limit of PyTorch, each with its unit and with what it was chosen by."""

FOREACH_BELOW_NUMEL = 1 << 31
"""Foreach kernels take tensors of fewer elements only: those for CUDA count elements in 32 bits."""

JOIN_UP_TO_NUMEL = 1 << 14
"""Tensors of up to so many elements are copied into one array and multiplied together.

Not measured: one launch for many tensors takes less time than one for each, and a copy of so few elements takes little.
"""

JOINED_NUMEL = 1 << 20
"""Elements of an array into which small tensors are copied. Not measured: 4 MiB of scratch in float32."""

PROGRAM_NUMEL = 4096
"""Elements that a program in Triton works on at a time: 16 for each of its 256 threads, four accesses of 16 bytes.

Not varied. With it, the norm of 1 GB of float32 takes the time of a copy on an H200 (docs/gpu.md).
"""

PROGRAM_WARPS = 8
"""Warps of a program, each of 32 threads."""

MERGED_PARTIALS = 1024
"""Partial norms that the program that merges all of them reads at a time: two turns for ``MOST_PIECES``."""

LEAF_PARTIALS, LEAF_WARPS = 256, 2
"""Partial norms that the program that merges those of one leaf reads at a time, and its warps. Not measured."""

FLOAT64_CAPABILITIES = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})
"""The compute capabilities whose float64 runs at half the rate of float32, so that sums in it keep up with memory.

They are those of P100, V100, A100, H100 and H200, and B200. On other GPUs of NVIDIA it runs at 1/32 or 1/64.
"""

"""Numbers that were chosen for speed, each with its unit and with what it was chosen by."""

THREADS = 256
"""Threads of a block, as in kernels.cu. Not varied: with it, the norm of 8 GB takes the time of a copy on an H200."""

FINISH_THREADS = 1024
"""Threads of the one block of ``finish``, as in kernels.cu: it merges ``MOST_PIECES`` partial norms in two turns."""

CHEAP_FLOAT64_RATIO = 4
"""If float32 is at most this many times as fast as float64, sums in float64 keep up with memory.

The driver reports 2 for A100, H100 and H200, and 32 or 64 for other GPUs. Measured on an H200 only.
"""

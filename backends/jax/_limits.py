"""Numbers that were chosen for speed, each with its unit and with what it was chosen by."""

JOIN_BELOW_NUMEL = 1 << 12
"""Leaves of fewer elements are laid end to end, if each device has the whole of them.

With ``1 << 14``, the vectors of 1,000 leaves would take 64 MB beside the gradients.
"""

JOIN_UP_TO_NUMEL = 1 << 20
"""The most elements that are laid end to end, in all: 4 MiB of scratch in float32."""

JOIN_LEAVES = 16
"""The most leaves in one vector.

XLA's time to compile the copy grows with the square of this number: 1.4 s for 400 leaves in one vector on a CPU, 0.6 s
in vectors of 16.
"""

ADD_NUMBERS = 16
"""Numbers that are added one after the other: rounding grows with this number, not with the number of leaves."""

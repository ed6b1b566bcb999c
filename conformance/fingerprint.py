"""The bits of a norm and of clipped leaves as text, to compare calls and processes."""

import sys

from gradclip.conformance.helpers import clip_global, read
from gradclip.conformance.targets import Target
from gradclip.conformance.values import spread


def fingerprint(target: Target, n: int = 20_000) -> str:
    """Return the bits of clipped leaves of ``n`` elements, two of every dtype, and of their norm."""
    dtypes = target.dtypes
    names = [f"layer{i}" for i in range(2 * len(dtypes))]
    grads = {
        name: target.make(spread(n, d, i), d) for i, (name, d) in enumerate(zip(names, [*dtypes, *dtypes], strict=True))
    }
    clipped, norm = clip_global(target, grads, 0.5)
    return norm.hex() + "".join(x.tobytes().hex()[:4096] for x in read(target, clipped))


def main(target: Target) -> None:
    """Print the fingerprint of a target."""
    sys.stdout.write(fingerprint(target))

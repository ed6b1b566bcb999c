"""Clipping of spikes: each element is limited by the second moment that an optimizer of Adam's kind keeps of it."""

import math
from collections.abc import Sequence
from typing import Any

from gradclip import _checks, _dtypes
from gradclip import _namespace as ns
from gradclip._adaptive import matching
from gradclip._chunks import boxes
from gradclip._containers import Containers
from gradclip._limits import HOST_CHUNK_NUMEL
from gradclip._tree import Leaves
from gradclip._types import AnyArray, AnyScalar, ArrayT, Scalar, Tree


class Spikes(Containers[ArrayT]):
    """Clipping of elements that are much larger than their second moment."""

    def clip_spikes(self, grads: Tree, second_moments: Any, threshold: Scalar = 5000.0) -> Tree:
        r"""Return gradients in which each element's square is at most ``threshold`` times its second moment (SPAM).

        .. math:: g \leftarrow \operatorname{sign}(g)\,\sqrt{\theta v} \quad \text{where } g^2 > \theta v

        The host waits for no accelerator.

        Parameters
        ----------
        grads : array or container of arrays
            As for `clip_by_global_norm`, of real dtypes. Not written to.
        second_moments : array or container of arrays
            v: the running means of squares that Adam keeps, without its correction of the bias and before the update by
            ``grads``; of the structure and the shapes of ``grads``.
        threshold : float or 0-d array
            θ, at least 0; inf: no clipping.

        Returns
        -------
        container of arrays
            Of the structure, shapes, dtypes and devices of ``grads``. NaN stays NaN, ±inf becomes the bounds. Elements
            that are no spikes are equal bit for bit.

        Raises
        ------
        TypeError
            If a leaf is complex or not a floating-point array, or ``threshold`` is not a number.
        ValueError
            If structures or shapes differ, or ``threshold`` is negative or NaN.

        Notes
        -----
        SPAM clips from its twentieth step on, and sets the moments to zero every 500 steps, after which it clips none
        of the next 20 steps. An element whose v is 0 is not clipped here; in SPAM's code it becomes 0, so that its v
        stays 0.

        References
        ----------
        .. [1] T. Huang, Z. Zhu, G. Jin, L. Liu, Z. Wang, S. Liu, "SPAM: Spike-Aware Adam with Momentum Reset for Stable
           LLM Training", ICLR 2025, arXiv:2501.06842, section 4.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.clip_spikes(np.array([0.1, -9.0]), np.array([0.01, 0.01]), 100.0)
        array([ 0.1, -1. ])
        """
        theta, leaves = _checks.threshold(threshold, "threshold", optional=False), self.leaves(grads)
        clipped: Tree = clip_spikes_of(leaves, self._moments(leaves, grads, second_moments), theta)
        return clipped

    def clip_spikes_(self, grads: Any, second_moments: Any, threshold: Scalar = 5000.0) -> None:
        """Clip spikes in place: each element's square is at most ``threshold`` times its second moment (SPAM).

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm_`, of real dtypes. On a host, parts of leaves without a spike are not written.
        second_moments, threshold
            As for `clip_spikes`.

        Raises
        ------
        TypeError
            As for `clip_spikes`; also if a leaf cannot be written.
        ValueError
            As for `clip_spikes`; also if leaves overlap in memory. All errors are raised before the first write.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> g = np.array([0.1, -9.0])
        >>> gradclip.clip_spikes_(g, np.array([0.01, 0.01]), 100.0)
        >>> g
        array([ 0.1, -1. ])
        """
        theta = _checks.threshold(threshold, "threshold", optional=False)
        leaves = self.leaves_(grads, "clip_spikes_")
        clip_spikes_of_(leaves, self._moments(leaves, grads, second_moments), theta)

    def _moments(self, leaves: Leaves, grads: Any, second_moments: Any) -> list[AnyArray]:
        return matching(leaves, grads, second_moments, lambda kept: self.params(kept, leaves), "second_moments")


def clip_spikes_of(leaves: Leaves, moments: Sequence[AnyArray], threshold: AnyScalar) -> Any:
    """Return the container of leaves without spikes; ``moments`` has the second moment of each of ``leaves.arrays``."""
    _check(leaves, moments)
    pairs = zip(leaves.arrays, moments, strict=True)
    return leaves.restore([leaves.ops.elementwise(_values, x, v, threshold) for x, v in pairs])


def clip_spikes_of_(leaves: Leaves, moments: Sequence[AnyArray], threshold: AnyScalar) -> None:
    """Clip the spikes of leaves in place. Adapters call it with their own leaves."""
    _check(leaves, moments)
    for x, v in zip(leaves.targets("clip_spikes"), moments, strict=True):
        if ns.is_lazy(x):
            ns.assign(x, leaves.ops.elementwise(_values, x, v, threshold))
            continue
        for key in boxes(tuple(x.shape), HOST_CHUNK_NUMEL) if ns.is_host(x) else [...]:
            new, spikes = _clipped(x[key], v[key], threshold)
            if not ns.is_host(x) or bool(ns.namespace([spikes]).any(spikes)):
                x[key] = new
    leaves.finish()


def _values(x: AnyArray, moment: AnyArray, threshold: AnyScalar) -> AnyArray:
    """Return an array without spikes."""
    return ns.as_array(_clipped(x, moment, threshold)[0])


def _clipped(x: AnyArray, moment: AnyArray, threshold: AnyScalar) -> tuple[AnyArray, AnyArray]:
    """Return an array without spikes, and where they were."""
    xp = ns.namespace([x])
    wide = xp.float64 if _dtypes.is_double(x.dtype) else xp.float32
    moment = ns.to_device(xp.astype(moment, xp.float32) if _dtypes.is_narrow(moment.dtype) else moment, ns.device(x))
    factor = math.sqrt(threshold) if isinstance(threshold, float) else xp.sqrt(xp.astype(threshold, wide))
    bound = xp.astype(xp.sqrt(moment), wide) * factor  # the root first: v · threshold may be out of range
    values = xp.astype(x, wide)
    spikes = (xp.abs(values) > bound) & (moment > 0)
    return xp.astype(xp.where(spikes, xp.where(values < 0, -bound, bound), values), x.dtype), spikes


def _check(leaves: Leaves, moments: Sequence[AnyArray]) -> None:
    for i, (x, v) in enumerate(zip(leaves.arrays, moments, strict=True)):
        _checks.not_complex(x, leaves.array_paths, i)
        if tuple(x.shape) != tuple(v.shape):
            raise ValueError(
                f"{leaves.array_paths()[i]} has shape {tuple(x.shape)} and its second moment {tuple(v.shape)}, "
                "expected equal shapes; pass second_moments in the same order as grads"
            )

"""``Fixed``: the same threshold at every step."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from gradclip import _checks
from gradclip._types import AnyArray
from gradclip._words import kind
from gradclip.policies._arguments import keep
from gradclip.policies._numbers import filled


class FixedState(NamedTuple):
    """The state of `Fixed`: it remembers nothing."""


@dataclass(frozen=True)
class Fixed:
    """The same threshold at every step: what ``max_norm=1.0`` is, as a policy.

    Parameters
    ----------
    max_norm : float
        The threshold, at least 0; inf: no clipping.

    Raises
    ------
    TypeError
        If ``max_norm`` is not a number.
    ValueError
        If it is negative or NaN.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063, Algorithm 1.

    Examples
    --------
    >>> from gradclip.policies import Fixed
    >>> policy = Fixed(1.0)
    >>> max_norm, state = policy.update(policy.init(0.0), 5.0)
    >>> max_norm
    1.0
    """

    max_norm: float

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checked = _checks.threshold(self.max_norm, "max_norm", optional=False)
        if not isinstance(checked, float):
            raise TypeError(
                f"max_norm is {kind(self.max_norm)}, expected a Python number: a policy keeps no arrays; pass a float, "
                "or the array itself as max_norm= of a function"
            )
        keep(self, max_norm=float(checked))

    def init(self, like: AnyArray) -> FixedState:  # noqa: ARG002  # other policies need it
        """Return the state before the first step."""
        return FixedState()

    def update(self, state: FixedState, norm: AnyArray) -> tuple[AnyArray, FixedState]:
        """Return the threshold for a norm, and the next state."""
        return filled(norm, self.max_norm), state

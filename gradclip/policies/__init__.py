"""Policies: published algorithms that choose ``max_norm`` at each step from the norms of the steps before."""

from gradclip.policies._adagc import AdaGC
from gradclip.policies._autoclip import AutoClip
from gradclip.policies._ema import EmaClip
from gradclip.policies._fixed import Fixed
from gradclip.policies._policy import Policy
from gradclip.policies._quantile import QuantileClip
from gradclip.policies._schedule import Schedule
from gradclip.policies._skip_step import SkipStep
from gradclip.policies._zclip import ZClip

__all__ = ["AdaGC", "AutoClip", "EmaClip", "Fixed", "Policy", "QuantileClip", "Schedule", "SkipStep", "ZClip"]

"""Policies: published algorithms that choose ``max_norm`` at each step from the norms of the steps before."""

from gradclip.policies._fixed import Fixed
from gradclip.policies._policy import Policy
from gradclip.policies._skip_step import SkipStep
from gradclip.policies._zclip import ZClip

__all__ = ["Fixed", "Policy", "SkipStep", "ZClip"]

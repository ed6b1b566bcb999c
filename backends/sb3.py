"""`GradClip`: a callback for the algorithms of Stable-Baselines3, which clips each network by its own norm."""
# Not installed where types are checked:
# pyright: reportMissingImports=false

import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.optim import Optimizer

from gradclip._elsewhere import Needs
from gradclip.backends.torch._in_trainer import InTrainer

with Needs("sb3", "stable_baselines3", install="stable-baselines3"):
    from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["GradClip"]


class GradClip(BaseCallback):
    """Clips the gradients of each network before its steps: ``model.learn(..., callback=GradClip(max_norm=0.5))``.

    The networks are "actor" and "critic" of SAC, TD3 and the like, and "policy" of PPO, A2C and DQN, which has one
    optimizer. The logger shows means of the numbers of `gradclip.monitor`; that of ``gradclip/clipped`` is the share of
    clipped steps. If there are several networks, the names end in theirs: ``grad_norm/actor``.

    A model that is loaded has new optimizers. ``model.save`` keeps the states of policies, and a warning at its loading
    says that it needs this callback again.

    Parameters
    ----------
    max_norm : float, Policy, dict or None
        As for `gradclip.backends.torch.attach`. In a dict by the names of networks, each has a threshold of its own;
        others are not clipped. "ent_coef", the logarithm of SAC's entropy coefficient, is clipped only if it is named.
    verbose : int
        Of the callback.
    **arguments
        The others of ``attach``; and ``monitor``, a `gradclip.monitor.NormMonitor` that records each step.

    Raises
    ------
    TypeError, ValueError
        As ``attach``. ValueError from ``learn``, if the algorithm clips too, or has no network of a name.
    """

    def __init__(self, max_norm: Any = None, verbose: int = 0, **arguments: Any) -> None:
        super().__init__(verbose)
        self._by_name = dict(max_norm) if isinstance(max_norm, Mapping) else None
        self._new = partial(InTrainer, None if self._by_name else max_norm, **arguments)
        self._clips = {name: InTrainer(limit, **arguments) for name, limit in (self._by_name or {}).items()}
        self._new()  # checks the arguments

    @property
    def clippings(self) -> dict[str, Any]:
        """The handles of ``attach`` by the names of the networks, during ``learn``."""
        return {name: clip.clippings[0] for name, clip in self._clips.items() if clip.clippings}

    def _on_training_start(self) -> None:
        own = getattr(self.model, "max_grad_norm", math.inf)
        if own != math.inf:
            raise ValueError(
                f"the model has max_grad_norm={own}, expected inf with GradClip, or gradients would be clipped twice; "
                f"pass max_grad_norm=math.inf to {type(self.model).__name__}, or set it on a loaded model"
            )
        kept = getattr(self.model, "grad_clip", None)
        self._attach()
        for name, state in (kept.states() if isinstance(kept, _Kept) else {}).items():
            if name in self._clips:
                self._clips[name].load_state_dict(state)

    def _on_rollout_end(self) -> None:  # gradient steps come next
        self._attach()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        for clip in self._clips.values():
            clip.end()

    def _attach(self) -> None:
        """Attach to the optimizers that the model has now."""
        networks = _networks_of(self.model)
        names = [name for name in networks if name != "ent_coef"] if self._by_name is None else list(self._by_name)
        if unknown := [name for name in names if name not in networks]:
            raise ValueError(
                f"max_norm names the network {unknown[0]!r}, expected one of {', '.join(networks)}, which "
                f"{type(self.model).__name__} has"
            )
        for name in names:
            clip = self._clips.setdefault(name, self._new())
            if clip.begin([networks[name]]):
                clip.clippings[0].observers.append(partial(self._record, clip, f"/{name}" if len(names) > 1 else ""))
        self.model.grad_clip = _Kept(self._clips)

    def _record(self, clip: InTrainer, suffix: str, _: object) -> None:
        for key, value in clip.take().items():
            self.logger.record_mean(key + suffix, value)


def _networks_of(model: Any) -> dict[str, Optimizer]:
    """Return the optimizers of an algorithm by the names of their networks."""
    owners = {name: getattr(getattr(model, name, None), "optimizer", None) for name in ("policy", "actor", "critic")}
    found = {**owners, "ent_coef": getattr(model, "ent_coef_optimizer", None)}
    return {name: optimizer for name, optimizer in found.items() if isinstance(optimizer, Optimizer)}


class _Kept:
    """The states of policies, as a model holds them: ``model.save`` pickles them, and loading them warns."""

    def __init__(self, clips: Mapping[str, InTrainer]) -> None:
        self._clips = clips

    def states(self) -> dict[str, Any]:
        return {name: clip.state_dict() for name, clip in self._clips.items()}

    def __reduce__(self) -> Any:
        return _loaded, (self.states(),)


def _loaded(states: Mapping[str, Any]) -> _Kept:
    warnings.warn(
        "this model was trained with GradClip; a loaded model has new optimizers, which are not clipped: call "
        "model.learn(..., callback=GradClip(...)) to clip them too",
        UserWarning,
        stacklevel=2,
    )
    clips = {name: InTrainer() for name in states}
    for name, state in states.items():
        clips[name].load_state_dict(state)
    return _Kept(clips)

"""Makes a learner's optimizer from the recipe, and says its learning rate at every step."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from engine.recipes import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    Optimizer,
    Polynomial,
    Recipe,
    RMSProp,
    Schedule,
    Step,
)


def make_optimizer(settings: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of one learner over all of its parameters, auxiliary networks included.

    The fused kernels are taken where torch has them: for narrow networks the loop over tensors is a part of the
    step that matters.
    """
    parameters = list(parameters)
    groups = _groups(settings, parameters)
    lr, decay = settings.learning_rate, settings.weight_decay
    if isinstance(settings, SGD):
        optimizer = _light(torch.optim.SGD)(
            groups, lr, momentum=settings.momentum, nesterov=settings.nesterov, weight_decay=decay, fused=True
        )
        if settings.momentum:
            # The fused kernel refuses parameters of which only some have moved, as after a first step without some
            # blocks; from zero the first step is the same.
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    if isinstance(settings, RMSProp):
        return _light(torch.optim.RMSprop)(
            groups,
            lr,
            alpha=settings.alpha,
            eps=settings.epsilon,
            weight_decay=decay,
            momentum=settings.momentum,
        )
    make = _light(torch.optim.AdamW if isinstance(settings, AdamW) else torch.optim.Adam)
    assert isinstance(settings, Adam)
    return make(groups, lr, betas=settings.betas, eps=settings.epsilon, weight_decay=decay, fused=True)


def _groups(settings: Optimizer, parameters: list[nn.Parameter]) -> list[Any]:
    """Return the parameters, or groups of those with weight decay and those without, as torch's optimizers take them.

    Scales, offsets and biases have one axis, the weights of convolutions and linear layers more.
    """
    if settings.undecayed is None:
        return parameters
    kept = {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0}
    groups: list[dict[str, Any]] = [{"params": [each for each in parameters if each.ndim > 1]}, kept]
    return [group for group in groups if group["params"]]


@functools.cache
def _light(kind: Any) -> Any:
    """Return a kind of optimizer whose methods do not load torch's compiler, which they only use to stay out of it.

    That takes some seconds and 150 MB of every learner. What the methods compute is the same, without gradients.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


def learning_rate(schedule: Schedule, start: float, epochs: int, steps_per_epoch: int, epoch: int, step: int) -> float:
    """Return the learning rate of one optimizer step.

    Args:
        schedule: how the rate changes.
        start: the recipe's learning rate lr.
        epochs: number of epochs E of the whole run.
        steps_per_epoch: optimizer steps in an epoch.
        epoch: epoch of the step, from 0.
        step: step inside the epoch, from 0.

    InfoPro's rate on CIFAR (methods file, section 3.4) is ``Cosine(counts_from=1, warmup_epochs=10)``: epoch 1
    runs at 0.01 and epoch E at exactly 0.
    """
    if isinstance(schedule, Constant):
        return start
    if isinstance(schedule, Step):
        warm = min(1.0, (epoch + 1) / schedule.warmup_epochs) if schedule.warmup_epochs else 1.0
        return start * warm * schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    if isinstance(schedule, Exponential):
        return start * schedule.factor**epoch
    progress = (epoch * steps_per_epoch + step) / (epochs * steps_per_epoch)
    if isinstance(schedule, Polynomial):
        return (start - schedule.minimum) * (1 - progress) ** schedule.power + schedule.minimum
    assert isinstance(schedule, Cosine)
    number = epoch + schedule.counts_from
    time = progress if schedule.counts_steps(epochs) else number / epochs
    base = 0.5 * start * (1 + math.cos(math.pi * time))
    warmup, ordinal = schedule.warmup_epochs, epoch + 1
    if ordinal <= warmup:
        return base * (ordinal - 1) / warmup + schedule.warmup_learning_rate * (warmup + 1 - ordinal) / warmup
    return base


def learning_rate_at(recipe: Recipe, steps_per_epoch: int, epoch: int, step: int) -> float:
    """Return the learning rate of one step of a recipe."""
    return learning_rate(recipe.schedule, recipe.optimizer.learning_rate, recipe.epochs, steps_per_epoch, epoch, step)

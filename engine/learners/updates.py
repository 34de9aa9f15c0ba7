"""Updates: what is done with a learner's gradients once they are there."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engine.data import Batch
from engine.learners.inputs import Inputs
from engine.learners.optimization import learning_rate_at
from engine.learners.propagation import Propagation
from engine.recipes import Recipe


class Updates:
    """Steps a learner's optimizer.

    Args:
        recipe: whose learning rate and bound on the gradients' norm hold.
        steps_per_epoch: optimizer steps in an epoch.
        optimizer: of the parameters.
        parameters: all of the learner.
        inputs: know the replicas.
        propagation: knows how losses are scaled, and whether they were finite.
    """

    def __init__(
        self,
        recipe: Recipe,
        steps_per_epoch: int,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        inputs: Inputs,
        propagation: Propagation,
    ) -> None:
        self._recipe, self._steps_per_epoch, self._clip_norm = recipe, steps_per_epoch, recipe.optimizer.clip_norm
        self._optimizer, self._parameters = optimizer, [*parameters]
        self._inputs, self._propagation = inputs, propagation

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Step with the gradients that are there, those of all replicas added up; the gradients stay.

        Returns:
            what was observed, scalars on the device: ``gradient_norm`` before it was clipped, if it is, and
            ``skipped_share`` in float16.
        """
        rate = learning_rate_at(self._recipe, self._steps_per_epoch, batch.epoch, batch.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._inputs.add_up(self._parameters)
        scaler = self._propagation.scaler
        observed = {} if self._clip_norm is None else {"gradient_norm": self._clip(self._clip_norm)}
        self._propagation.check.mask(self._optimizer)
        scaler.step(self._optimizer)
        scaler.update()
        return observed | scaler.observed()

    def _clip(self, most: float) -> Tensor:
        scaler = self._propagation.scaler
        scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, most)
        if not scaler.is_enabled():
            return norm
        # The scaler leaves a step out whose gradients overflowed: all that is known of their norm is that it is larger.
        return norm.nan_to_num(nan=most, posinf=most)

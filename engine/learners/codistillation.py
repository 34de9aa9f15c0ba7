"""Codistillation phases of a learner: predictions stated anew after an update, and the exchange of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.data import Batch
from engine.learners.frozen_peers import FrozenPeers, flat_weights
from engine.learners.hooks import statistics_untracked
from engine.learners.inputs import Inputs
from engine.learners.outputs import Outputs
from engine.learners.propagation import Propagation
from engine.objectives import Objective


class Codistillation:
    """What a learner does for the other peers of its cohort besides training.

    Args:
        body: the blocks.
        objective: with its auxiliary networks.
        inputs: prepares what the body takes.
        propagation: runs the body.
        outputs: what the learner tells.
        frozen: the copies of other peers.
    """

    def __init__(
        self,
        body: nn.Sequential,
        objective: Objective,
        inputs: Inputs,
        propagation: Propagation,
        outputs: Outputs,
        frozen: FrozenPeers,
    ) -> None:
        self._body, self._objective = body, objective
        self._inputs, self._propagation = inputs, propagation
        self._outputs, self._frozen = outputs, frozen

    def restate(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """State predictions anew after `update`, for peers that learn later in the step (paper, Algorithm 1).

        Like `forward` in all but the weights: the same images, features and random numbers. It leaves no trace:
        running statistics of batch norms stay as after one forward.
        """
        if self._outputs.diverged is not None:
            return self._outputs.nothing(self._outputs.restated, len(batch.labels))
        features = next(iter(messages.values()), None)
        pixels = self._inputs.training_pixels(batch) if features is None else None
        inputs = self._inputs.prepared(pixels, features)
        with torch.no_grad(), statistics_untracked(self._body, self._objective):
            values = self._propagation.run(batch, inputs).values
        return self._outputs.state(self._outputs.restated, values)

    def publish(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Give all weights of the body, float32 [N]; NaN once the learner has left its cohort."""
        return (self._outputs.or_nothing(flat_weights(self._body)),)

    def adopt(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Put the weights that peers published into the copies of them."""
        self._frozen.adopt(messages)
        return ()

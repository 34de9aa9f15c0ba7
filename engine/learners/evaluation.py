"""Evaluation phases of a learner: inference, scores, and batch norms' statistics measured anew before them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.data import Batch, on_device
from engine.learners.hooks import POOLED, OutputHooks
from engine.learners.inputs import Inputs
from engine.learners.meters import Meters
from engine.learners.outputs import Outputs
from engine.learners.propagation import Propagation
from engine.learners.recalibration import Recalibration
from engine.tasks import Task

# Where scores are counted.
_CPU = torch.device("cpu")


class Evaluation:
    """Runs a body as it is deployed; heads and decoders take no part.

    Args:
        body: the blocks.
        network: the deployed network that the body is a part of.
        task: which scores the outputs.
        inputs: prepares what the body takes.
        propagation: knows the precision.
        outputs: what the learner tells, and whether it has left its cohort.
        meters: whose clock is stopped.
        dtype: of what is given.
    """

    def __init__(
        self,
        body: nn.Sequential,
        network: str,
        task: Task,
        inputs: Inputs,
        propagation: Propagation,
        outputs: Outputs,
        meters: Meters,
        dtype: torch.dtype,
    ) -> None:
        self._body, self._network, self._task, self._dtype = body, network, task, dtype
        self._inputs, self._propagation = inputs, propagation
        self._outputs, self._meters = outputs, meters
        self._recalibration: Recalibration | None = None
        self._pooled: OutputHooks | None = None
        self._score, self._together = task.score(), task.common_score()

    def recalibrate(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Add training images to those from which the batch norms' statistics are measured anew.

        The next evaluation takes them up; training, which uses the statistics of each batch, does not notice.
        """
        self._meters.pause()
        if self._recalibration is None:
            self._recalibration = Recalibration(self._body)
        with self._propagation.autocast():
            self._recalibration.add(self._inputs.prepared(self._inputs.augmenter.training_pixels(batch)))
        return ()

    def infer(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body in evaluation mode, on the images or on the features [B, ...] of the segment before."""
        self._meters.pause()
        if self._recalibration is not None:
            self._recalibration.finish()
            self._recalibration = None
        features = next(iter(messages.values()), None)
        if self._body.training:
            self._body.eval()
        pixels = self._inputs.augmenter.evaluation_pixels(batch) if features is None else None
        with torch.no_grad(), self._propagation.autocast():
            return (self._body(self._inputs.prepared(pixels, features)).detach().to(self._dtype),)

    def score(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body, which ends with the network's last block, and add what the task scores to the score.

        Returns:
            what is scored: the network's output, such as class logits [B, classes], or the features [B, D] that enter
            its last linear layer; NaN once the learner has left its cohort.
        """
        scored = self._features(batch, messages) if self._task.scored == "features" else self.infer(batch, messages)[0]
        self._score.update(scored.float().cpu(), on_device(batch.labels, _CPU))
        return (self._outputs.or_nothing(scored),)

    def _features(self, batch: Batch, messages: Mapping[str, Tensor]) -> Tensor:
        if self._pooled is None:
            self._pooled = OutputHooks(self._body, (POOLED,))
        with self._pooled.recording() as found:
            self.infer(batch, messages)
        return found[POOLED].detach().to(self._dtype)

    def score_together(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Add what is scored of all networks of the cohort, such as logits [B, classes], to their common score."""
        assert self._together is not None, "the task has no common score"
        outputs = {name: each.float().cpu() for name, each in messages.items()}
        self._together.update(outputs, on_device(batch.labels, _CPU))
        return ()

    def features(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what the score of the network has kept of the batches until now; nothing if it keeps none."""
        kept = self._task.kept(self._score) if self._score.images else None
        return {} if kept is None else {self._network: kept}

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the scores of the evaluation batches since the last question, by network; `ensemble` is of all."""
        scores = {self._network: self._score, "ensemble": self._together}
        self._score, self._together = self._task.score(), self._task.common_score()
        return {network: score.result() for network, score in scores.items() if score is not None and score.images}

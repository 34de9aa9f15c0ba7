"""History: predictions of earlier epochs as teachers (PS-KD and LWR)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data import NO_LABEL, Batch, on_device
from engine.knowledge.store import KnowledgeStore
from engine.learners.self_distillation.passes import FIRST, Pass, Passes, SelfDistillation
from engine.objectives import RECALLED, Classification, KnowledgeMimicry


class _History(SelfDistillation):
    """What both share: one pass, on which a store of past predictions is brought to bear."""

    def __init__(self, store: KnowledgeStore) -> None:
        self._store = store
        self._batch: Batch | None = None

    def passes(self, batch: Batch, pixels: Tensor) -> Passes:
        """Return one pass."""
        self._batch = batch
        labels = on_device(batch.labels, pixels.device)
        return Passes(Pass(FIRST, pixels, labels, terms=self._terms(batch.epoch)))

    def _terms(self, epoch: int) -> dict[str, float]:
        raise NotImplementedError

    @property
    def bytes(self) -> int:
        """Bytes of the store."""
        return self._store.bytes

    def knowledge(self) -> dict[str, Tensor]:
        """Return the rows of the store that changed since the last question."""
        return self._store.changes()

    def restore_knowledge(self, rows: Mapping[str, Tensor]) -> None:
        """Take up rows that `knowledge` returned."""
        if rows:
            self._store.load(rows)


class LastVisit(_History):
    """PS-KD (Kim et al. 2021): L = CE(z, (1 - a_e) y + a_e p), p said of the image in the epoch before.

    a_e = last_share (e + 1) / E. The part of p is a divergence here, whose gradient is that of the printed
    cross-entropy and whose value is lower by a_e times the entropy of p. In the first epoch, of which nothing was said
    before, the label is the whole target; so it is later for an image of which nothing is known. An image without a
    label learns from p alone.

    Args:
        store: of one group, which keeps the last prediction of each image.
        last_share: share of p in the last epoch, above 0; the weight of the knowledge term.
        epochs: E.
    """

    def __init__(self, store: KnowledgeStore, last_share: float, epochs: int) -> None:
        super().__init__(store)
        self._last_share, self._epochs = last_share, epochs

    def _terms(self, epoch: int) -> dict[str, float]:
        if epoch == 0:
            return {Classification.name: 1.0}
        progress = (epoch + 1) / self._epochs
        return {Classification.name: 1 - self._last_share * progress, KnowledgeMimicry.name: progress}

    def recall(self, each: Pass, predictions: Tensor, heard: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what was said of the images when they were seen last, then remember what is said now."""
        assert self._batch is not None
        recalled = on_device(self._store.recall(0, self._batch.indices), predictions.device)
        self._store.remember(0, self._batch.indices, predictions.float().softmax(dim=1))
        if self._batch.epoch == 0:
            return {}
        labels = each.labels
        unknown = recalled.isnan().any(dim=1) & (labels != NO_LABEL)
        targets = F.one_hot(labels.clamp(min=0), recalled.shape[1]).float()
        return {RECALLED: torch.where(unknown[:, None], targets, recalled)}


class Retrospection(_History):
    """LWR (Deng and Zhang 2021): predictions of the last epoch of an interval teach throughout the next interval.

        L = (g + (1 - c / H) (1 - g)) CE(z, y) + (c / H) (1 - g) T^2 KL(softmax(z_past / T) || softmax(z / T))

    With epochs e that count from 1 and intervals of k epochs, c = 0 as long as e <= k, then k floor(e / k), at most H:
    the first k epochs learn from the labels alone. Nothing is added for an image of which nothing is known.

    Args:
        store: of logits, in two groups: what is said now, and what is recalled.
        interval: k.
        label_share: g, below 1; 1 - g is the weight of the knowledge term.
        horizon: H.
    """

    def __init__(self, store: KnowledgeStore, interval: int, label_share: float, horizon: int) -> None:
        super().__init__(store)
        self._interval, self._label_share, self._horizon = interval, label_share, horizon

    def _terms(self, epoch: int) -> dict[str, float]:
        if epoch < self._interval:
            return {Classification.name: 1.0}
        progress = min((epoch + 1) // self._interval * self._interval / self._horizon, 1.0)
        share = self._label_share
        return {Classification.name: share + (1 - progress) * (1 - share), KnowledgeMimicry.name: progress}

    def recall(self, each: Pass, predictions: Tensor, heard: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what was said of the images at the end of the last interval, and remember what is said now."""
        batch = self._batch
        assert batch is not None
        if batch.step == 0 and batch.epoch and batch.epoch % self._interval == 0:
            self._store.publish(0, 1)
        self._store.remember(0, batch.indices, predictions)
        if batch.epoch < self._interval:
            return {}
        return {RECALLED: on_device(self._store.recall(1, batch.indices).softmax(dim=1), predictions.device)}

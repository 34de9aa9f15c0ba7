"""Group knowledge (GKT, MKF): what larger sub-networks knew of an image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.backbones import SubNetworkSampler
from engine.data import Batch, on_device
from engine.knowledge.fraction import split_knowledge
from engine.knowledge.fraction_loss import fraction_losses
from engine.knowledge.mixing import Mixing, mix
from engine.knowledge.store import KnowledgeStore
from engine.learners.role import Role
from engine.learners.self_distillation.mixed_images import Mixer
from engine.learners.self_distillation.passes import FIRST, Pass, Passes, SelfDistillation
from engine.learners.self_distillation.remote_store import RemoteStore
from engine.objectives import RECALLED, MixedLabels
from engine.recipes import Fraction
from engine.streams import generator

_UNMIXED = "unmixed"


class GroupDistillation(SelfDistillation):
    """Sub-networks in groups t = 0..T-1 by size: group t learns from the knowledge of group t - 1.

    Step s trains group s modulo T, or every group where that is asked for; the T sub-networks of a loop of T steps are
    drawn together, each inside the one before it. The order of the step as in the paper: remember, then recall.
    Nothing is kept of the smallest group, which teaches nobody, unless its knowledge splits mixed predictions.

    Args:
        role: whose random stream is drawn from.
        sampler: draws the sub-networks of a loop.
        groups: T.
        every_group: whether a step trains all groups, one after another.
        store: of the groups that are remembered; None if nothing is to be learned from it.
        steps_per_epoch: which the step of the run is counted by.
        mixer: decides which images are mixed; None for GKT.
        fraction: the rule that splits mixed predictions.
        measure_every: mixed steps from one measurement of all rules to the next; 0 for none.
    """

    def __init__(
        self,
        role: Role,
        sampler: SubNetworkSampler,
        groups: int,
        every_group: bool,
        store: KnowledgeStore | RemoteStore | None,
        steps_per_epoch: int,
        mixer: Mixer | None = None,
        fraction: Fraction = "keep",
        measure_every: int = 0,
    ) -> None:
        self._role, self._sampler, self._groups, self._every_group = role, sampler, groups, every_group
        self._store, self._steps_per_epoch = store, steps_per_epoch
        self._mixer, self._fraction, self._measure_every = mixer, fraction, measure_every
        self._mixed_steps = 0
        self._batch: Batch | None = None
        self._mixing: Mixing | None = None
        self._measures = False
        self._observed: dict[str, float] = {}

    def passes(self, batch: Batch, pixels: Tensor) -> Passes:
        """Return the pass of this step's group, or one of every group; all see the same images."""
        step = batch.epoch * self._steps_per_epoch + batch.step
        loop, group = (step, 0) if self._every_group else divmod(step, self._groups)
        drawn = self._sampler.draw((self._role.seed, self._role.stream, "sub-networks", loop), self._groups)
        all_labels = on_device(batch.labels, pixels.device)
        self._batch, self._observed = batch, {}
        self._mixing = self._mixer.draw(batch, pixels) if self._mixer is not None else None
        images, labels, mixed = pixels, all_labels, None
        if self._mixer is not None:
            rows = self._mixer.rows(batch)
            images, labels = pixels[:rows], all_labels[:rows]
        consulted: tuple[Pass, ...] = ()
        if self._mixing is not None:
            partner = on_device(self._mixing.partner, pixels.device)
            images, mixed = (
                mix(pixels, self._mixing),
                MixedLabels(all_labels[partner], on_device(self._mixing.share, pixels.device)),
            )
            self._measures = bool(self._measure_every) and self._mixed_steps % self._measure_every == 0
            self._mixed_steps += 1
            if self._measures:
                # The same sub-network with the same weights, which says what the unmixed images would have got.
                consulted = (Pass(_UNMIXED, pixels, all_labels, dropped=drawn[group], tracked=False),)
        first = Pass(FIRST, images, labels, mixed, drawn[group], group=group)
        further: tuple[Pass, ...] = ()
        if self._every_group:
            further = tuple(
                Pass(f"group {each}", images, labels, mixed, dropped, group=each)
                for each, dropped in enumerate(drawn)
                if each
            )
        return Passes(first, consulted, further)

    def hear(self, batch: Batch, messages: Mapping[str, Tensor]) -> None:
        """Take up what the servers of the knowledge say of this step's images, where there are servers."""
        if isinstance(self._store, RemoteStore):
            self._store.hear(batch.indices, messages)

    def told(self) -> tuple[Tensor, ...]:
        """Return what the servers shall remember, where there are some: see `RemoteStore.collected`."""
        return self._store.collected() if isinstance(self._store, RemoteStore) else ()

    def recall(self, each: Pass, predictions: Tensor, heard: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Remember this group's predictions, then return what the next larger group knows of the images."""
        if self._store is None:
            return {}
        assert self._batch is not None
        indices = self._batch.indices
        said = predictions.float().softmax(dim=1)
        if self._mixing is None:
            indices = indices[: len(said)]
            if each.group < self._store.groups:
                self._store.remember(each.group, indices, said)
            if not each.group:
                return {}
            return {RECALLED: on_device(self._store.recall(each.group - 1, indices), said.device)}
        partner = self._mixing.partner.numpy()
        first, second = indices[: len(partner)], indices[partner]
        share = on_device(self._mixing.share, said.device)
        if each.group < self._store.groups:
            known = on_device(self._store.recall(each.group, first), said.device)
            others = on_device(self._store.recall(each.group, second), said.device)
            if self._measures and each.name == FIRST:
                self._measure(said, known, others, heard[_UNMIXED])
            split = split_knowledge(said, known, others, share, self._fraction)
            # Images with both parts in this batch get the mean of the two, weighted by their shares.
            self._store.remember(
                each.group,
                self._batch.indices[torch.cat([torch.arange(len(partner)), self._mixing.partner]).numpy()],
                torch.cat([split.first, split.second]),
                torch.cat([split.first_weight, split.second_weight]),
            )
        if not each.group:
            return {}
        larger, larger_others = (
            on_device(self._store.recall(each.group - 1, ids), said.device) for ids in (first, second)
        )
        share = share[:, None]
        # Of an image that has no part, nothing need be known.
        blend = torch.where(share == 0, larger_others, share * larger + (1 - share) * larger_others)
        recalled = torch.where(share == 1, larger, blend)
        return {RECALLED: recalled}

    def _measure(self, said: Tensor, known: Tensor, others: Tensor, unmixed: Tensor) -> None:
        assert self._mixing is not None and self._batch is not None
        truth = unmixed.float().softmax(dim=1)
        stream = generator(self._role.seed, "fraction", self._batch.epoch, self._batch.step)
        partner = on_device(self._mixing.partner, said.device)
        share = on_device(self._mixing.share, said.device)
        losses = fraction_losses(said, known, others, truth[: len(said)], truth[partner], share, stream)
        self._observed = {f"fraction/{name}": float(value) for name, value in losses.items()}

    def observed(self) -> Mapping[str, float]:
        """Return the losses of all rules in this step, where they were measured."""
        return self._observed

    @property
    def bytes(self) -> int:
        """Bytes of the store."""
        return self._store.bytes if self._store is not None else 0

    def state(self) -> dict[str, Tensor]:
        """Return how many steps were mixed; the rest of the state is the store's."""
        return {"mixed_steps": torch.tensor(self._mixed_steps)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""
        self._mixed_steps = int(tensors["mixed_steps"])

    def knowledge(self) -> dict[str, Tensor]:
        """Return the rows of the store that changed since the last question."""
        return self._store.changes() if isinstance(self._store, KnowledgeStore) else {}

    def restore_knowledge(self, rows: Mapping[str, Tensor]) -> None:
        """Take up rows that `knowledge` returned."""
        if isinstance(self._store, KnowledgeStore) and rows:
            self._store.load(rows)

"""Stochastic depth and stimulative training: blocks left out, and sub-networks that are taught."""

from __future__ import annotations

import torch

from engine.backbones import SubNetworkSampler
from engine.data import Batch, on_device
from engine.learners.role import Role
from engine.learners.self_distillation.passes import FIRST, Pass, Passes, SelfDistillation


class RandomDepth(SelfDistillation):
    """Stochastic depth (Huang et al. 2016): one sub-network in each step, blocks left out independently.

    Args:
        role: whose random stream is drawn from.
        sampler: with the rule ``independent``.
    """

    def __init__(self, role: Role, sampler: SubNetworkSampler) -> None:
        self._role, self._sampler = role, sampler

    def passes(self, batch: Batch, pixels: torch.Tensor) -> Passes:
        """Return one pass, whose remaining branches are divided by their chance to remain."""
        dropped = self._sampler.draw((self._role.seed, self._role.stream, "depth", batch.epoch, batch.step), 2)[1]
        kept = {name: 1 / chance for name, chance in self._sampler.survival().items() if name not in dropped}
        labels = on_device(batch.labels, pixels.device)
        return Passes(Pass(FIRST, pixels, labels, dropped=dropped, scales=kept))


class Stimulation(SelfDistillation):
    """Stimulative training (Ye et al. 2022): L = CE(z, y) + c sum_s T^2 KL(p_full || p_s), p_full detached.

    Losses of several sub-networks (ST++) are added up, as in the released code.

    Args:
        role: whose random stream is drawn from.
        sampler: draws sub-networks.
        count: S, sub-networks in a step; 0 if their loss has no weight.
        label_term: name of the term of the full network.
        mimicry_term: name of the term of the sub-networks, which hears the full network's predictions as ``first``.
    """

    def __init__(self, role: Role, sampler: SubNetworkSampler, count: int, label_term: str, mimicry_term: str) -> None:
        self._role, self._sampler, self._count = role, sampler, count
        self._label_term, self._mimicry_term = label_term, mimicry_term

    def passes(self, batch: Batch, pixels: torch.Tensor) -> Passes:
        """Return the full network's pass and one of each sub-network, all on the same images."""
        role, labels = self._role, on_device(batch.labels, pixels.device)
        # Inherited sub-networks form one family; all others are drawn each for itself.
        drawn = self._sampler.draw((role.seed, role.stream, "sub-networks", batch.epoch, batch.step), self._count + 1)
        further = tuple(
            Pass(f"sub-network {group}", pixels, labels, dropped=dropped, terms={self._mimicry_term: 1.0}, group=group)
            for group, dropped in enumerate(drawn)
            if group
        )
        return Passes(Pass(FIRST, pixels, labels, terms={self._label_term: 1.0}), further=further)

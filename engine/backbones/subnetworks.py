"""Sub-networks that leave blocks out: which there are, how one is drawn, and how it runs.

A sub-network is the network without some of its residual blocks: a dropped block's branch is switched off, so that its
input is its output. Weights are shared, and what changes the shape of the features is always kept.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from engine.backbones.residual import bypassable
from engine.errors import RecipeError
from engine.streams import Key, generator

Rule = Literal["inherited", "ordered", "uniform", "independent"]
Stages = tuple[tuple[str, ...], ...]


def droppable_stages(network: nn.Sequential) -> Stages:
    """Return the names of the blocks that a sub-network may lack, in order, by stage.

    A stage is a run of consecutive bypassable blocks. A block marked ``first_of_stage`` begins one and is kept itself,
    even where it keeps the shape, as in the first stage of a ResNet-34: the smallest sub-network of Ye et al. (2022,
    NeurIPS, "Stimulative training of residual networks") has one block in each stage. Stages without a droppable
    block are left out.

    Args:
        network: blocks with ``bypassable = True`` map features to features of the same shape.
    """
    can_be_dropped = set(bypassable(network))
    stages: list[list[str]] = [[]]
    for name, child in network._modules.items():
        if name in can_be_dropped and not getattr(child, "first_of_stage", False):
            stages[-1].append(name)
        else:
            stages.append([])
    return tuple(tuple(stage) for stage in stages if stage)


def require_droppable(network: nn.Sequential, name: str) -> Stages:
    """Return `droppable_stages` of a network that must have some.

    Args:
        network: as in `droppable_stages`.
        name: the recipe's ``backbone.name``.

    Raises:
        RecipeError: no block can be dropped.
    """
    stages = droppable_stages(network)
    if not stages:
        raise RecipeError(
            f"backbone.name={name}: none of its {len(network)} children can be left out, so it has no sub-networks. "
            "Expected residual blocks that keep the shape of their input: choose a ResNet, a wide ResNet, a MobileNet "
            "V2 or V3 or a deeper one of them, or set bypassable = True on such blocks of your own network."
        )
    return stages


def run_without(network: nn.Sequential, inputs: Tensor, dropped: Collection[str]) -> Tensor:
    """Return what the network computes without some of its blocks, whose computation is saved.

    Blocks that were dropped keep the gradient None, so that an optimizer neither moves nor decays their weights.
    Each child is called with its hooks; hooks of the network itself, and a compiled form of it, are not.

    Args:
        network: the blocks, in order.
        inputs: images or features [B, ...].
        dropped: names of children whose output has the shape of their input.

    Returns:
        the last child's output; with nothing dropped, ``network(inputs)`` bit for bit.
    """
    for name, child in network._modules.items():
        if name not in dropped:
            inputs = child(inputs)
    return inputs


@dataclass(frozen=True)
class SubNetworkSampler:
    """Draws the sub-networks of a step, one for each group; group 0 is the whole network.

    Rules, for stages of n droppable blocks:

        inherited: each group is drawn inside the one before (Tang et al., AAAI 2024, "Boosting residual networks with
            group knowledge", arXiv 2308.13772): of the n blocks still there in a stage, the last d go, with P(d)
            proportional to decay^d for d = 0..n. The paper says "exponential decay"; this formula is ours.
        ordered: the same draw, each directly in the whole network.
        uniform: the last d blocks of a stage go, d uniform on 0..n (Ye et al., NeurIPS 2022), or on 0..k-1 with one k
            of ``choices`` for each stage (arXiv 2305.02507).
        independent: block l of all L goes with probability (l / L) (1 - last_survival), independently of the others
            (Huang et al. 2016, arXiv 1603.09382, equation 4).

    Attributes:
        stages: see `droppable_stages`.
        rule: one of the above.
        decay: rho > 0 of ``inherited`` and ``ordered``.
        last_survival: p_L in (0, 1] of ``independent``.
        strict: of ``inherited`` and ``ordered``: draws that drop nothing more are rejected, as long as there is
            something to drop.
        choices: of ``uniform``: how many depths each stage of ``stages`` has, None for n + 1.

    Raises:
        RecipeError: ``choices`` does not fit the stages.
    """

    stages: Stages
    rule: Rule
    decay: float = 0.5
    last_survival: float = 0.5
    strict: bool = True
    choices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.choices is None:
            return
        largest = tuple(len(stage) + 1 for stage in self.stages)
        fit = len(self.choices) == len(largest) and all(
            1 <= k <= most for k, most in zip(self.choices, largest, strict=True)
        )
        if not fit:
            raise RecipeError(
                f"method.stage_choices={self.choices}: this network has {len(largest)} stages with droppable blocks. "
                f"Expected {len(largest)} numbers of depths, each from 1 to at most {largest}; leave the field out for "
                "these."
            )

    def draw(self, key: tuple[Key, ...], count: int) -> tuple[frozenset[str], ...]:
        """Return the names of the blocks that each group lacks, a pure function of the key.

        Args:
            key: such as (seed, "sub-networks", step); every group's draw is the same for each larger ``count``.
            count: of groups, at least 1.

        Returns:
            ``count`` sets, the first of them empty.
        """
        stream = generator(*key)

        def uniform() -> float:
            return torch.rand((), generator=stream, dtype=torch.float64).item()

        groups: list[frozenset[str]] = [frozenset()]
        while len(groups) < count:
            groups.append(self._child(groups[-1], uniform))
        return tuple(groups)

    def survival(self) -> dict[str, float]:
        """Return the probability with which ``independent`` keeps each block, by name: 1 - (l / L) (1 - p_L)."""
        names = list(itertools.chain.from_iterable(self.stages))
        return {name: 1 - place / len(names) * (1 - self.last_survival) for place, name in enumerate(names, start=1)}

    def _child(self, parent: frozenset[str], uniform: Callable[[], float]) -> frozenset[str]:
        if self.rule == "independent":
            return frozenset(name for name, kept in self.survival().items() if uniform() >= kept)
        if self.rule == "uniform":
            choices = self.choices or [len(stage) + 1 for stage in self.stages]
            return _without_last(self.stages, [math.floor(uniform() * k) for k in choices])
        if self.rule == "ordered":
            parent = frozenset()
        left = [[name for name in stage if name not in parent] for stage in self.stages]
        return parent | _without_last(left, self._exponential([len(stage) for stage in left], uniform))

    def _exponential(self, lengths: Sequence[int], uniform: Callable[[], float]) -> list[int]:
        # Rejecting draws that drop nothing means to draw under the condition that something is dropped. Stage by stage
        # that needs no repetition: as long as nothing was dropped, d = 0 counts only as often as a later stage drops.
        weights = [_normalised([self.decay**d for d in range(length + 1)]) for length in lengths]
        drops_from = [0.0]
        for each in reversed(weights):
            drops_from.insert(0, sum(each[1:]) + each[0] * drops_from[0])
        must_drop = self.strict and any(lengths)
        depths: list[int] = []
        for each, drops_later in zip(weights, drops_from[1:], strict=True):
            unless_dropped = must_drop and not any(depths)
            depths.append(_chosen([each[0] * drops_later, *each[1:]] if unless_dropped else each, uniform()))
        return depths


def _normalised(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]


def _chosen(weights: Sequence[float], point: float) -> int:
    # Index i with probability proportional to weights[i], if point is uniform on [0, 1).
    cumulative = list(itertools.accumulate(weights))
    # Rounding can lift the product to the sum of all.
    return min(bisect.bisect_right(cumulative, point * cumulative[-1]), len(weights) - 1)


def _without_last(stages: Sequence[Sequence[str]], depths: Sequence[int]) -> frozenset[str]:
    return frozenset(name for stage, depth in zip(stages, depths, strict=True) for name in stage[len(stage) - depth :])

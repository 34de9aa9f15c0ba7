"""Costs of any segment of a network, its auxiliary networks included, from one look at each block.

Saved bytes of a segment of the units [a, b), a unit being a block and the last one the classifier, too:

    S(a, b) = sum of u_i - sum of the boundary tensors that both of their neighbours save + A(b)

where u_i are the saved bytes of unit i alone and A(b) those of head and decoder behind it. Times add up likewise.
A(b) is measured, by running the objective that the method makes for a segment which ends there. Both follow from the
recipe alone, so that every learner finds the same cut wherever it lives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from engine.backbones import feature_shapes
from engine.backbones.shapes import meta_copy
from engine.data import Facts
from engine.errors import RecipeError
from engine.learners.memory import SavedActivations
from engine.learners.numerics import DTYPES
from engine.objectives import Context, Objective
from engine.partition.cost_counter import CostCounter, in_precision
from engine.partition.segment import SegmentObjective, segment_of
from engine.recipes import Recipe
from engine.tasks import task_of

# One core of an AMD EPYC with AVX-512, float32, fitted to the measured times of ResNet-32's blocks at batch 128: 15 of
# 16 within 10 %. Only their ratio matters for a cut.
_SECONDS_PER_MAC = 4.6e-12
_SECONDS_PER_BYTE = 1.5e-10


def modelled_seconds(macs: float, moved: float) -> float:
    """Return how long work takes by a linear model: arithmetic and memory traffic one after the other.

    Args:
        macs: multiply-accumulates.
        moved: bytes read and written.
    """
    return macs * _SECONDS_PER_MAC + moved * _SECONDS_PER_BYTE


@dataclass(frozen=True)
class Auxiliary:
    """What the local objective behind a unit costs for one batch.

    Attributes:
        saved: bytes that autograd keeps beyond what the unit itself makes it keep.
        seconds: of forward and backward, by the model.
    """

    saved: float
    seconds: float


@dataclass(frozen=True)
class Unit:
    """What a unit of a network costs for one batch.

    Attributes:
        saved: bytes that autograd keeps, its input among them if need be.
        seconds: of forward and backward, by the model.
        forward_seconds: of the forward pass.
        input_bytes: of its input.
        input_saved: whether it makes autograd keep its input.
        output_saved: whether it makes autograd keep its output.
        output: on the meta device.
    """

    saved: int
    seconds: float
    forward_seconds: float
    input_bytes: int
    input_saved: bool
    output_saved: bool
    output: Tensor


class CostProfile:
    """Costs of any segment of a network, from one look at each unit.

    Args:
        recipe: whose method cuts the network; of a cohort, the peer's own.
        facts: what is known of the data.
        network: the whole network; on any device, and left as it is.
        num_segments: K, which may decide what the local losses are.
        objective: of its segments.

    Attributes:
        units: how many there are.
        num_segments: K.
        looks: what each unit costs by itself, branches that leave it not counted.

    Raises:
        RecipeError: as ``objective`` does for the last segment.
    """

    def __init__(
        self, recipe: Recipe, facts: Facts, network: nn.Sequential, num_segments: int, objective: SegmentObjective
    ) -> None:
        self.units = len(network) - 1
        self.num_segments = num_segments
        self._recipe, self._facts, self._make = recipe, facts, objective
        self._network = meta_copy(network).train()
        # The counter is not read: under it the meta device is quicker.
        with CostCounter():
            self._shapes = feature_shapes(network, facts.image_shape)
        self._auxiliaries: dict[tuple[int, tuple[int, ...], bool], Auxiliary] = {}
        # Behind most blocks of most segments stands the same.
        self._measured: dict[tuple[object, ...], Auxiliary] = {}
        self._output_saved: list[bool] = []
        self.looks: list[Unit] = []
        saved, seconds, shared = self._profile()
        self._shared = list(accumulate(shared))
        self._saved = [0, *accumulate(saved)]
        self._seconds = [0.0, *accumulate(seconds)]

    def saved(self, part: int, start: int, stop: int) -> float:
        """Return the bytes that autograd keeps of segment ``part`` if it holds the units [start, stop)."""
        inner = self._shared[stop - 1] - self._shared[start]
        return self._saved[stop] - self._saved[start] - inner + self.auxiliary(part, stop).saved

    def seconds(self, part: int, start: int, stop: int) -> float:
        """Return the modelled seconds of a step of segment ``part`` if it holds the units [start, stop)."""
        return self._seconds[stop] - self._seconds[start] + self.auxiliary(part, stop).seconds

    def auxiliary(self, part: int, stop: int) -> Auxiliary:
        """Return the cost of the local objective of segment ``part`` behind unit ``stop - 1``.

        Infinite where it cannot stand, so that no cut goes there while there is another one.
        """
        if stop == self.units:
            return Auxiliary(0, 0.0)
        features, saved = self._shapes[stop - 1], self._output_saved[stop - 1]
        place = (part, features, saved)
        if place not in self._auxiliaries:
            try:
                objective = self._objective(part, stop, stop)
                alike = (repr(_likeness(objective)), features, saved)
                if alike not in self._measured:
                    self._measured[alike] = self._cost_of(objective, features, saved)
                self._auxiliaries[place] = self._measured[alike]
            except RecipeError:
                self._auxiliaries[place] = Auxiliary(math.inf, math.inf)
        return self._auxiliaries[place]

    def obstacle(self, part: int, stop: int) -> str:
        """Return why the local objective of segment ``part`` cannot stand behind unit ``stop - 1``; "" if it can."""
        if math.isfinite(self.auxiliary(part, stop).seconds):
            return ""
        try:
            self._objective(part, stop, stop)
        except RecipeError as error:
            return str(error)
        return ""

    def _profile(self) -> tuple[list[float], list[float], list[int]]:
        """Return of each unit saved bytes, seconds, and the bytes that the unit before it saves, too."""
        features = torch.empty(self._recipe.data.batch_size, *self._facts.image_shape, device="meta")
        saved, seconds, shared = [], [], []
        classes, last = self._shapes[-1], self.num_segments - 1
        forks = self._objective(last, 0, self.units).hooks
        children = list(self._network.named_children())
        seen: dict[str, Unit] = {}
        for number in range(self.units):
            blocks = children[number : number + 1] if number < self.units - 1 else children[number:]
            # Most blocks are like the one before.
            alike = repr((number > 0, features.shape, features.dtype, [_likeness(block) for _, block in blocks]))
            if alike not in seen:
                seen[alike] = self._look_at([block for _, block in blocks], features)
            unit, branches = seen[alike], Auxiliary(0, 0.0)
            if blocks[0][0] in forks:
                objective = self._objective(last, number, number + 1)
                branches = self._cost_of(objective, classes, True, blocks[0][0], unit.output_saved)
            saved.append(unit.saved + branches.saved)
            seconds.append(unit.seconds + branches.seconds)
            both = number > 0 and unit.input_saved and self._output_saved[-1]
            shared.append(features.nbytes if both else 0)
            self._output_saved.append(unit.output_saved)
            self.looks.append(unit)
            features = unit.output.detach().requires_grad_()
        return saved, seconds, shared

    def _look_at(self, blocks: list[nn.Module], features: Tensor) -> Unit:
        own = [tensor for block in blocks for tensor in (*block.parameters(), *block.buffers())]
        kept, counter = SavedActivations(own), CostCounter()
        with counter, kept.counting(), in_precision(DTYPES[self._recipe.numerics.precision]):
            output = features
            for block in blocks:
                output = block(output)
            forward = modelled_seconds(counter.macs, counter.moved)
            input_saved, output_saved = features in kept, output in kept
            if output.requires_grad:
                output.backward(torch.empty_like(output))
        seconds = modelled_seconds(counter.macs, counter.moved)
        return Unit(kept.bytes, seconds, forward, features.nbytes, input_saved, output_saved, output.detach())

    def _objective(self, part: int, start: int, stop: int) -> Objective:
        segment = segment_of(self._shapes, part, self.num_segments, start, stop)
        if segment.is_last:
            segment = replace(segment, features=self._shapes[-1])
        with torch.device("meta"):
            return self._make(self._recipe, self._facts, segment, self._network, (0, segment.name))

    def _cost_of(
        self,
        objective: Objective,
        features: tuple[int, ...],
        output_saved: bool,
        hooked: str | None = None,
        hooked_saved: bool = False,
    ) -> Auxiliary:
        rows = self._recipe.data.batch_size

        def leaf(shape: tuple[int, ...]) -> Tensor:
            return torch.empty(rows, *shape, device="meta", requires_grad=True)

        output = leaf(features)
        hooks = {hooked: leaf(dict(zip(self._network._modules, self._shapes, strict=True))[hooked])} if hooked else {}
        seen = [output] if output_saved else []
        seen += hooks.values() if hooked_saved else ()
        pixels = torch.empty(rows, *self._facts.image_shape, device="meta") if objective.needs_pixels else None
        labels = task_of(self._recipe, self._facts).zero_labels(rows, torch.device("meta"))
        kept, counter = SavedActivations([*objective.parameters(), *objective.buffers(), *seen]), CostCounter()
        with counter, kept.counting(), in_precision(DTYPES[self._recipe.numerics.precision]):
            objective(output, Context(labels, pixels, hooked=hooks, step=1)).total.backward()
        return Auxiliary(kept.bytes, modelled_seconds(counter.macs, counter.moved))


def _likeness(whole: nn.Module) -> list[object]:
    """Return all that tells a module from others in what it costs: kinds, settings and sizes of its parts."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (type(module), {name: value for name, value in vars(module).items() if isinstance(value, plain)})
        for module in whole.modules()
    ] + [tuple(weight.shape) for weight in whole.parameters()]

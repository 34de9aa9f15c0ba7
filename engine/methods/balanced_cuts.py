"""Where is a network cut so that its segments need equal memory, or equal time, auxiliary networks included?

Saved bytes of a segment of the units [a, b), a unit being a block and the last one the classifier, too:

    S(a, b) = sum of u_i - sum of the boundary tensors that both of their neighbours save + A(b)

where u_i are the saved bytes of unit i alone and A(b) those of head and decoder behind it. Times add up likewise.
Both follow from the recipe alone, so that every learner finds the same cut wherever it lives.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.backbones import cut_points, feature_shapes
from engine.backbones.shapes import meta_copy
from engine.data import Facts
from engine.learners.numerics import DTYPES
from engine.methods.balancing import balance
from engine.methods.costs import Ledger, SavedStorages, in_precision
from engine.objectives import Context, Objective
from engine.recipes import Ramp, Recipe
from engine.tasks import task_of

if TYPE_CHECKING:
    from engine.methods.chain import Chain

# One core of an AMD EPYC with AVX-512, float32, fitted to the measured times of ResNet-32's blocks at batch 128: 15 of
# 16 within 10 %. Only their ratio matters for a cut.
_SECONDS_PER_MAC = 4.6e-12
_SECONDS_PER_BYTE = 1.5e-10

Ranges = tuple[tuple[int, int], ...]

_found: dict[str, tuple[str, ...]] = {}


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

    saved: int
    seconds: float


@dataclass(frozen=True)
class _Unit:
    """What a unit of a network costs for one batch.

    Attributes:
        saved: bytes that autograd keeps, its input among them if need be.
        seconds: of forward and backward, by the model.
        input_saved: whether it makes autograd keep its input.
        output_saved: whether it makes autograd keep its output.
        output: on the meta device.
    """

    saved: int
    seconds: float
    input_saved: bool
    output_saved: bool
    output: Tensor


class CostProfile:
    """Costs of any segment of a network, from one look at each unit.

    Args:
        recipe: whose method cuts the network; of a cohort, the peer's own.
        facts: what is known of the data.
        network: the whole network; on any device, and left as it is.
        num_segments: K, which decides the weights of local losses.
    """

    def __init__(self, recipe: Recipe, facts: Facts, network: nn.Sequential, num_segments: int) -> None:
        self.units = len(network) - 1
        self.num_segments = num_segments
        self._recipe, self._facts, self._task = recipe, facts, task_of(recipe, facts)
        self._network = meta_copy(network).train()
        # The ledger is not read: under it the meta device is quicker.
        with Ledger():
            self._shapes = feature_shapes(network, facts.image_shape)
        self._auxiliaries: dict[tuple[object, ...], Auxiliary] = {}
        # The method's file imports this room's other files, and so, through them, this one.
        self._chain: Chain = importlib.import_module(f"engine.methods.{recipe.method.kind}").METHOD
        self._output_saved: list[bool] = []
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
        """Return the cost of the local objective of segment ``part`` behind unit ``stop - 1``."""
        if stop == self.units:
            return Auxiliary(0, 0.0)
        features, saved = self._shapes[stop - 1], self._output_saved[stop - 1]
        key = (self.terms(part), features, saved)
        if key not in self._auxiliaries:
            self._auxiliaries[key] = self._cost_of(self._objective(part, stop, stop, features), features, saved)
        return self._auxiliaries[key]

    def terms(self, part: int) -> tuple[str, ...]:
        """Return what the local objective of segment ``part`` has weights above 0 for, of those that change over depth.

        Its place changes nothing else: terms of weight 0 are not built, and the other weights cost the same.
        """
        ramps = {name: value for name, value in vars(self._recipe.method).items() if isinstance(value, Ramp)}
        return tuple(name for name, ramp in ramps.items() if ramp.at(part, self.num_segments) > 0)

    def _profile(self) -> tuple[list[int], list[float], list[int]]:
        """Return of each unit saved bytes, seconds, and the bytes that the unit before it saves, too."""
        features = torch.empty(self._recipe.data.batch_size, *self._facts.image_shape, device="meta")
        saved, seconds, shared = [], [], []
        classes, last = self._task.output_shape(self._facts.image_shape), self.num_segments - 1
        forks = self._objective(last, 0, self.units, classes).taps
        children = list(self._network.named_children())
        seen: dict[str, _Unit] = {}
        for number in range(self.units):
            blocks = children[number : number + 1] if number < self.units - 1 else children[number:]
            # Most blocks are like the one before.
            alike = repr((number > 0, features.shape, features.dtype, [_likeness(block) for _, block in blocks]))
            if alike not in seen:
                seen[alike] = self._look_at([block for _, block in blocks], features)
            unit, branches = seen[alike], Auxiliary(0, 0.0)
            if blocks[0][0] in forks:
                objective = self._objective(last, number, number + 1, classes)
                branches = self._cost_of(objective, classes, True, blocks[0][0], unit.output_saved)
            saved.append(unit.saved + branches.saved)
            seconds.append(unit.seconds + branches.seconds)
            both = number > 0 and unit.input_saved and self._output_saved[-1]
            shared.append(features.nbytes if both else 0)
            self._output_saved.append(unit.output_saved)
            features = unit.output.detach().requires_grad_()
        return saved, seconds, shared

    def _look_at(self, blocks: list[nn.Module], features: Tensor) -> _Unit:
        own = [tensor for block in blocks for tensor in (*block.parameters(), *block.buffers())]
        kept, ledger = SavedStorages(own), Ledger()
        with ledger, kept.counting(), in_precision(DTYPES[self._recipe.numerics.precision]):
            output = features
            for block in blocks:
                output = block(output)
            input_saved, output_saved = features in kept, output in kept
            output.backward(torch.empty_like(output))
        seconds = modelled_seconds(ledger.macs, ledger.moved)
        return _Unit(kept.bytes, seconds, input_saved, output_saved, output.detach())

    def _objective(self, part: int, start: int, stop: int, features: tuple[int, ...]) -> Objective:
        from engine.methods.segments import Segment

        segment = Segment(part, self.num_segments, start, stop, features, self._shapes[-2][0])
        with torch.device("meta"):
            return self._chain.objective(self._recipe, self._facts, segment, self._network, (0, segment.name))

    def _cost_of(
        self,
        objective: Objective,
        features: tuple[int, ...],
        output_saved: bool,
        tapped: str | None = None,
        tapped_saved: bool = False,
    ) -> Auxiliary:
        rows = self._recipe.data.batch_size

        def leaf(shape: tuple[int, ...]) -> Tensor:
            return torch.empty(rows, *shape, device="meta", requires_grad=True)

        output = leaf(features)
        taps = {tapped: leaf(dict(zip(self._network._modules, self._shapes, strict=True))[tapped])} if tapped else {}
        seen = [output] if output_saved else []
        seen += taps.values() if tapped_saved else ()
        pixels = torch.empty(rows, *self._facts.image_shape, device="meta") if objective.needs_pixels else None
        labels = self._task.zero_labels(rows, torch.device("meta"))
        kept, ledger = SavedStorages([*objective.parameters(), *objective.buffers(), *seen]), Ledger()
        with ledger, kept.counting(), in_precision(DTYPES[self._recipe.numerics.precision]):
            objective(output, Context(labels, pixels, tapped=taps, step=1)).total.backward()
        return Auxiliary(kept.bytes, modelled_seconds(ledger.macs, ledger.moved))


def _likeness(block: nn.Module) -> list[object]:
    """Return all that tells a block from others in what it costs: kinds, settings and sizes of its modules."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (type(module), {name: value for name, value in vars(module).items() if isinstance(value, plain)})
        for module in block.modules()
    ] + [tuple(weight.shape) for weight in block.parameters()]


def balanced_cuts(
    recipe: Recipe, facts: Facts, network: nn.Sequential, num_segments: int, rule: str
) -> tuple[str, ...]:
    """Return the K - 1 names of the blocks after which ``balanced_memory`` or ``balanced_time`` cuts a network.

    Args:
        recipe: of the network, or of the peer.
        facts: what is known of the data.
        network: the whole backbone.
        num_segments: K, from 1 to the number of blocks.
        rule: one of the two.

    Raises:
        RecipeError: the method's local objective cannot stand behind some block.
    """
    key = repr((rule, num_segments, recipe.method, recipe.backbone, recipe.data.batch_size, recipe.numerics.precision))
    key += repr((recipe.task, facts.image_shape, [tuple(weight.shape) for weight in network.parameters()]))
    if key not in _found:
        profile = CostProfile(recipe, facts, network, num_segments)
        cost = profile.saved if rule == "balanced_memory" else profile.seconds
        points = cut_points(network)
        _found[key] = tuple(points[stop - 1] for stop in balance(cost, profile.units, num_segments))
    return _found[key]

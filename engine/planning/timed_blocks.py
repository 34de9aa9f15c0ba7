"""Blocks and auxiliary networks of a network, timed on this machine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from itertools import accumulate

import torch
from torch import Tensor, nn

from engine.backbones import feature_shapes
from engine.data import Facts
from engine.learners import choose_device, numerics_applied
from engine.learners.numerics import DTYPES
from engine.methods.registry import chain_of
from engine.methods.segments import build_network
from engine.objectives import Context, Objective
from engine.partition import segment_of
from engine.planning.estimate import segmented
from engine.planning.sizes import without_files
from engine.recipes import Recipe
from engine.tasks import task_of

_ROUNDS = 5
_FIRST_ROWS = 2


class TimedBlocks:
    """Measured seconds of any segment of a recipe's network, forward and backward, with its local objective.

    Every piece is timed by itself with a random batch, in a few rounds over all pieces, and its median counts. Other
    work on the machine shows in the result.

    Args:
        recipe: whose method cuts; of a cohort, the first peer's network is timed.
        facts: what is known of the images.
        num_segments: the numbers of segments that will be asked for.
        budget: seconds that all timing may take, roughly.
    """

    def __init__(self, recipe: Recipe, facts: Facts, num_segments: list[int], budget: float = 1.0) -> None:
        recipe = without_files(recipe)
        inside = segmented(recipe)
        assert inside is not None
        self._recipe = dataclasses.replace(recipe, method=inside)
        self._facts = facts
        self.device = choose_device(recipe.numerics, torch.cuda.is_available())
        self._shapes: tuple[tuple[int, ...], ...] = ()
        with numerics_applied(recipe.numerics):
            network = build_network(self._recipe, facts, recipe.seed)
            self._shapes = feature_shapes(network, facts.image_shape)
            self.units = len(network) - 1
            pieces = self._pieces(network, num_segments)
            self.rows = min(_FIRST_ROWS, recipe.data.batch_size)
            self._round(pieces)
            first = sum(self._round(pieces).values())
            fitting = int(self.rows * budget / (_ROUNDS * first))
            self.rows = min(max(fitting, self.rows), recipe.data.batch_size)
            rounds = [self._round(pieces) for _ in range(_ROUNDS)]
        times = {name: statistics.median(each[name] for each in rounds) for name in pieces}
        self._units = [0.0, *accumulate(times[f"unit {unit}"] for unit in range(self.units))]
        self._objectives = {key: times[name] for key, name in self._names.items()}

    def seconds(self, num_segments: int, part: int, start: int, stop: int) -> float:
        """Return the seconds of segment ``part`` of K if it holds the units [start, stop), for `rows` images."""
        auxiliary = 0.0 if stop == self.units else self._objectives[num_segments, part, self._shapes[stop - 1]]
        return self._units[stop] - self._units[start] + auxiliary

    def _pieces(self, network: nn.Sequential, counts: list[int]) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
        """Return each unit and each different local objective with the shape of what it takes, by name."""
        shapes = (self._facts.image_shape, *self._shapes)
        pieces: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
        for unit in range(self.units):
            stop = len(network) if unit == self.units - 1 else unit + 1
            pieces[f"unit {unit}"] = (network[unit:stop].to(self.device).train(), shapes[unit])
        self._names: dict[tuple[int, int, tuple[int, ...]], str] = {}
        chain = chain_of(self._recipe)
        for count in counts:
            for part in range(count - 1):
                for features in dict.fromkeys(self._shapes[: self.units - 1]):
                    stop = self._shapes.index(features) + 1
                    # Without blocks, so that no branch leaves inside.
                    segment = segment_of(self._shapes, part, count, stop, stop)
                    objective = chain.objective(self._recipe, self._facts, segment, network, (0, segment.name))
                    name = f"objective {sorted(objective.terms)} on {features}"
                    self._names[count, part, features] = name
                    pieces.setdefault(name, (objective.to(self.device).train(), features))
        return pieces

    def _round(self, pieces: dict[str, tuple[nn.Module, tuple[int, ...]]]) -> dict[str, float]:
        return {name: self._time(module, shape, name != "unit 0") for name, (module, shape) in pieces.items()}

    def _time(self, module: nn.Module, shape: tuple[int, ...], needs_gradient: bool) -> float:
        features = torch.randn(self.rows, *shape, device=self.device, requires_grad=needs_gradient)
        labels = task_of(self._recipe, self._facts).zero_labels(self.rows, self.device)
        pixels = torch.rand(self.rows, *self._facts.image_shape, device=self.device)
        dtype = DTYPES[self._recipe.numerics.precision]
        self._wait()
        started = time.perf_counter()
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            if isinstance(module, Objective):
                output: Tensor = module(features, Context(labels, pixels, step=1)).total
            else:
                output = module(features)
        output.backward(torch.ones_like(output))
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

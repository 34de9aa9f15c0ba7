"""Blocks and auxiliary networks of a network, timed on this machine one by one."""

from __future__ import annotations

import math
import statistics
import traceback
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from engine.errors import LearnerError, RecipeError
from engine.learners import explain, make_optimizer
from engine.learners.numerics import DTYPES
from engine.objectives import Context, Objective
from engine.tasks import task_of
from engine.timing.subject import OUT_OF_MEMORY, Subject, is_out_of_memory

_ROUNDS = 3
_FIRST_ROWS = 2

Run = Callable[[], None]


class TimedBlocks:
    """Measured seconds of any segment of a network as the sum of its pieces, with its local objective.

    Every piece is timed by itself with a random batch, forward, backward and update, in a few rounds over all pieces,
    and its median counts. Other work on the machine shows in the result. What pieces share or save in one segment
    does not, so a sum is near the time of the segment, and not the same.

    Args:
        subject: whose blocks are timed.
        num_segments: the numbers of segments that will be asked for.
        batch_size: images of a learner's step.
        budget: seconds that all timing may take, roughly; where they are too few, there are fewer images.

    Attributes:
        rows: images in the batch that is timed.

    Raises:
        LearnerError: a block fails, as it would in a training.
    """

    def __init__(self, subject: Subject, num_segments: Sequence[int], batch_size: int, budget: float = 4.0) -> None:
        self._subject = subject
        with subject.prepared():
            pieces = self._pieces(num_segments)
            self.rows = self._rows(pieces, batch_size, budget)
            while (rounds := self._rounds(pieces)) is None:
                self.rows = -(-self.rows // 2)
        times = {name: statistics.median(each[name] for each in rounds) for name in pieces}
        # The pieces begin with the units, in their order.
        self._units = [0.0, *accumulate(list(times.values())[: subject.units])]
        self._objectives = {key: times[name] for key, name in self._names.items()}

    def seconds(self, num_segments: int, part: int, start: int, stop: int) -> float:
        """Return the seconds of segment ``part`` of K if it holds the units [start, stop), for `rows` images.

        Infinite where its local objective cannot stand behind the last of them.
        """
        units, shapes = self._subject.units, self._subject.shapes
        place = (num_segments, part, shapes[stop - 1])
        auxiliary = 0.0 if stop == units else self._objectives.get(place, math.inf)
        return self._units[stop] - self._units[start] + auxiliary

    def _pieces(self, counts: Sequence[int]) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
        """Return each unit and each different local objective with the shape of what it takes, by name."""
        subject, network, units = self._subject, self._subject.network, self._subject.units
        shapes, blocks = (subject.facts.image_shape, *subject.shapes), list(network._modules)
        pieces: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
        for unit in range(units):
            stop = len(network) if unit == units - 1 else unit + 1
            pieces[f"block {blocks[unit]}"] = (network[unit:stop].train(), shapes[unit])
        self._names: dict[tuple[int, int, tuple[int, ...]], str] = {}
        for count in counts:
            for part in range(count - 1):
                for features in dict.fromkeys(subject.shapes[: units - 1]):
                    stop = subject.shapes.index(features) + 1
                    try:
                        # Without blocks, so that no branch leaves inside.
                        objective = subject.objective(subject.segment(part, count, stop, stop))
                    except RecipeError:
                        # No cut goes there; if there is no other, the segment that is run says why it cannot be.
                        continue
                    name = f"objective {sorted(objective.terms)} on {features}"
                    self._names[count, part, features] = name
                    pieces.setdefault(name, (objective.to(subject.device).train(), features))
        return pieces

    def _rounds(self, pieces: dict[str, tuple[nn.Module, tuple[int, ...]]]) -> list[dict[str, float]] | None:
        """Return the seconds of each piece by round; None if all together do not fit into memory with so many rows."""
        try:
            runs = self._runs(pieces, self.rows)
            # The first is slower: memory is found, kernels are chosen.
            self._round(runs)
            return [self._round(runs) for _ in range(_ROUNDS)]
        except (LearnerError, *OUT_OF_MEMORY) as error:
            if self.rows > 1 and is_out_of_memory(error):
                return None
            raise

    def _rows(self, pieces: dict[str, tuple[nn.Module, tuple[int, ...]]], batch_size: int, budget: float) -> int:
        """Return with how many images all rounds stay in the budget, the whole batch if it does."""
        rows, fit = min(_FIRST_ROWS, batch_size), 1
        while True:
            try:
                runs = self._runs(pieces, rows)
                self._round(runs)
                for_all = (1 + _ROUNDS) * sum(self._round(runs).values())
            except (LearnerError, *OUT_OF_MEMORY) as error:
                if is_out_of_memory(error):
                    return fit
                raise
            # Two sets of inputs may be too many.
            del runs
            fit = rows
            fitting = int(rows * budget / for_all)
            # What does not grow with the images weighs less where there are more, so a few say too little.
            if fitting <= 4 * rows or rows == batch_size:
                return min(max(fitting, rows), batch_size)
            rows = min(4 * rows, batch_size)

    def _round(self, runs: dict[str, Run]) -> dict[str, float]:
        times = {}
        for name, run in runs.items():
            try:
                times[name] = self._subject.seconds(run)
            except Exception as error:
                raise LearnerError("timing", f"{name}: {explain(error)}", traceback.format_exc()) from error
        return times

    def _runs(self, pieces: dict[str, tuple[nn.Module, tuple[int, ...]]], rows: int) -> dict[str, Run]:
        """Return a function for each piece that takes a step of it with so many images."""
        recipe, facts, device = self._subject.recipe, self._subject.facts, self._subject.device
        labels = task_of(recipe, facts).zero_labels(rows, device)
        pixels = self._subject.placed(torch.rand(rows, *facts.image_shape))

        def step_of(module: nn.Module, shape: tuple[int, ...], needs_gradient: bool) -> Run:
            inputs = self._subject.placed(torch.randn(rows, *shape)).requires_grad_(needs_gradient)
            parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
            optimizer = make_optimizer(recipe.optimizer, parameters) if parameters else None
            dtype = DTYPES[recipe.numerics.precision]

            def step() -> None:
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    if isinstance(module, Objective):
                        output: Tensor = module(inputs, Context(labels, pixels, step=1)).total
                    else:
                        output = module(inputs)
                if output.requires_grad:
                    output.backward(torch.ones_like(output))
                inputs.grad = None
                if optimizer is not None:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)

            return step

        return {
            name: step_of(module, shape, needs_gradient=place > 0)
            for place, (name, (module, shape)) in enumerate(pieces.items())
        }

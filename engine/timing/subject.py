"""The subject of a timing: the network of a recipe, on the device and with the numerics that its learners have."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine import backbones
from engine.data import Facts
from engine.errors import PlanError, RecipeError
from engine.learners import choose_device, numerics_applied
from engine.methods.chain import Chain
from engine.methods.registry import method_of
from engine.methods.segments import build_network
from engine.objectives import Objective
from engine.partition import Segment, segment_of
from engine.recipes import Constant, Recipe, segmented, without_files
from engine.streams import seeded

# So small that weights stay as good as they were: what is timed again and again must not diverge.
_LEARNING_RATE = 1e-12

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether this, or what caused it, is that a device has too little memory."""
    return isinstance(error, OUT_OF_MEMORY) or isinstance(error.__cause__, OUT_OF_MEMORY)


@dataclass(frozen=True)
class Subject:
    """A network that is timed, and what its learners have.

    Attributes:
        recipe: whose method cuts; without files, and with a learning rate that changes nothing.
        facts: what is known of the images.
        chain: its method.
        network: the whole network, on the device.
        shapes: of all blocks' outputs, without the batch axis.
        device: where learners compute, as far as this process has it.
    """

    recipe: Recipe
    facts: Facts
    chain: Chain
    network: nn.Sequential
    shapes: tuple[tuple[int, ...], ...]
    device: torch.device

    @property
    def units(self) -> int:
        """Blocks, the last of which stays with the classifier."""
        return len(self.network) - 1

    def segment(self, part: int, count: int, start: int, stop: int) -> Segment:
        """Return segment ``part`` of ``count`` that holds the units [start, stop)."""
        end = len(self.network) if stop == self.units and part == count - 1 else stop
        return segment_of(self.shapes, part, count, start, end)

    def objective(self, segment: Segment) -> Objective:
        """Return the objective of a segment; raises RecipeError where it cannot stand."""
        origin = (self.recipe.seed, segment.name)
        return self.chain.objective(self.recipe, self.facts, segment, self.network, origin)

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Run a block with the threads and numerics of learners, and leave torch's random numbers as they were."""
        try:
            with numerics_applied(self.recipe.numerics), seeded(self.recipe.seed, "timing", device=self.device):
                yield
        finally:
            if self.device.type == "cuda":
                # Learners may live in other processes, which need the memory.
                torch.cuda.empty_cache()

    def let_go(self) -> None:
        """Give the device's memory back; nothing can be timed afterwards."""
        self.network.to("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def placed(self, value: Tensor) -> Tensor:
        """Return a tensor on the device, in the memory format that learners have."""
        channels_last = self.recipe.numerics.channels_last and value.dim() == 4
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return value.to(self.device, memory_format=layout)

    def seconds(self, work: Callable[[], None]) -> float:
        """Return how long work takes, on a GPU until it is done there."""
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def subject_of(recipe: Recipe, facts: Facts) -> Subject:
    """Return the network of a recipe to be timed; of a cohort, its first peer's.

    Networks are timed as they are written, with ``numerics.compile`` too: to compile each piece would take minutes.

    Args:
        recipe: whose method cuts.
        facts: what is known of the images.

    Raises:
        RecipeError: the method makes its learners itself, so that nobody else can make a segment of it.
        PlanError: the recipe asks for a device that this process does not have.
    """
    recipe = without_files(recipe)
    inside, field = segmented(recipe), recipe.method.inside_field
    assert inside is not None, f"{recipe.method.kind} does not cut"
    optimizer = dataclasses.replace(recipe.optimizer, learning_rate=_LEARNING_RATE)
    own = dataclasses.replace(recipe, method=inside, optimizer=optimizer, schedule=Constant())
    chain = method_of(own)
    if not isinstance(chain, Chain):
        raise RecipeError(
            f"{field}.kind={inside.kind}: its METHOD makes learners itself, so its segments cannot be timed one by "
            f"one; only those of a Chain can: name the blocks in {field}.cuts, or choose another rule"
        )
    try:
        device = choose_device(own.numerics, torch.cuda.is_available())
    except PlanError as error:
        raise PlanError(f"the blocks are timed in this process: {error}") from error
    with numerics_applied(own.numerics):
        network = build_network(own, facts, own.seed)
        shapes = backbones.feature_shapes(network, facts.image_shape)
    layout = torch.channels_last if own.numerics.channels_last else torch.contiguous_format
    placed: Any = network
    placed.to(device, memory_format=layout)
    return Subject(own, facts, chain, network, shapes, device)

"""The sizes of a team's learners: what each needs in bytes and in work, found without a byte allocated.

The learners are those that training builds, by the same code, on the meta device; one step of each is run there. What
a step allocates and frees is followed storage by storage, so its peak is the device's own, up to what kernels need for
themselves and what the allocator keeps.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data import Batch, Facts
from engine.learners import Learner, Role, SideBranch, Trunk
from engine.learners.finite import ImmediateCheck
from engine.learners.memory import MemoryMeter, SavedActivations, tensor_bytes
from engine.learners.numerics import DTYPES
from engine.learners.propagation import Propagation
from engine.learners.self_distillation.last_batch import LastBatch
from engine.learners.self_distillation.passes import SelfDistillation
from engine.methods import Team, method_of
from engine.methods.branches import branches_of, forks_of
from engine.methods.segments import build_network
from engine.methods.team import LearnerSummary
from engine.methods.whole_network import Training, WholeNetwork
from engine.objectives import Context
from engine.partition import CostCounter, in_precision, layer_macs, modelled_seconds
from engine.program import BATCH, Message
from engine.recipes import Recipe, without_files
from engine.tasks import task_of

_META = torch.device("meta")
_COPIES, _KNOWLEDGE = "copies_of_peers", "knowledge"


@dataclass(frozen=True)
class LearnerSize:
    """One learner; sizes in bytes, of one step with a full batch.

    Attributes:
        name: unique in its team.
        blocks: names of the blocks of its body.
        body_activations: what autograd keeps of the body, its input among it.
        auxiliary_activations: what it keeps of the objective beyond that: of heads, decoders and branches.
        parameters: of body and auxiliary networks.
        auxiliary_parameters: of the auxiliary networks alone.
        gradients: of the parameters.
        optimizer: momentum and the like.
        kept: what else stays from step to step, by purpose: knowledge, which lies in the host's memory, and copies of
            peers, which lie on the device.
        lasting: what lies on the learner's device between two steps.
        transient: most bytes that a step adds to that at one time.
        macs: multiply-accumulates of the body for one image, forward; none of a branch, which is not deployed.
        auxiliary_macs: those of the objective's layers as they are written, whichever way they are evaluated.
        forward_seconds: modelled, of the body's forward pass.
        seconds: modelled, of the whole step.
        trunk: share of the forward pass up to the last branch that is a learner of its own; 1 where there is none.
        again_activations: what the backward pass keeps beyond all other activations at one time, of blocks that it runs
            again.
    """

    name: str
    blocks: tuple[str, ...]
    body_activations: int = 0
    auxiliary_activations: int = 0
    parameters: int = 0
    auxiliary_parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    lasting: int = 0
    transient: int = 0
    macs: int = 0
    auxiliary_macs: int = 0
    forward_seconds: float = 0.0
    seconds: float = 0.0
    trunk: float = 1.0
    again_activations: int = 0

    @property
    def activations(self) -> int:
        """All that is kept for the backward pass, at most at one time."""
        return self.body_activations + self.auxiliary_activations + self.again_activations

    @property
    def peak(self) -> int:
        """Most bytes on the learner's device at one time, if nothing else is there."""
        return self.lasting + self.transient


def team_sizes(recipe: Recipe, facts: Facts, team: Team) -> tuple[LearnerSize, ...]:
    """Return the sizes of all learners of a recipe's team, in its order.

    Where blocks are left out at random, the whole network counts.

    Raises:
        RecipeError: a learner cannot be built.
    """
    recipe = without_files(recipe)
    return tuple(_size(recipe, facts, team, learner) for learner in team.learners)


def _size(recipe: Recipe, facts: Facts, team: Team, summary: LearnerSummary) -> LearnerSize:
    # A store has a row for each image, and is as large as that of a few images so many times.
    parts = max(1, recipe.method.store_learners)
    few = dataclasses.replace(facts, training_positions=parts)
    times = -(-facts.training_positions // parts)
    method = method_of(recipe)
    if not summary.parameters + summary.auxiliary_parameters:
        kept = method.build_learner(recipe, few, 1, summary.name, _META).ask_memory()
        weights = kept.get("parameters", 0)
        knowledge = {_KNOWLEDGE: kept[_KNOWLEDGE] * times} if _KNOWLEDGE in kept else {}
        return LearnerSize(summary.name, summary.blocks, parameters=weights, kept=knowledge, lasting=weights)
    # The counter is not read: under it the meta device is quicker.
    with CostCounter(), _META:
        learner = method.build_learner(recipe, few, 1, summary.name, _META)
    assert isinstance(learner, Learner)
    modules = (learner.body, learner.objective)
    step = _Step(learner, recipe, facts, team)
    parameters, auxiliary = (tensor_bytes(module.parameters()) for module in modules)
    gradients = sum(tensor_bytes(p.grad for p in m.parameters() if p.grad is not None) for m in modules)
    optimizer = _optimizer_bytes(learner.optimizer)
    copies = sum(message.bytes for message in _messages(team, summary.name, "adopt"))
    self_distillation = _self_distillation(recipe, few)
    known = times * self_distillation.bytes if self_distillation is not None else 0
    kept = {_COPIES: copies, _KNOWLEDGE: known + _seen_again(self_distillation, recipe, facts)}
    lasting = parameters + auxiliary + optimizer + copies + sum(tensor_bytes(module.buffers()) for module in modules)
    # No part of the deployed network, so all of it is auxiliary.
    beside = isinstance(learner, SideBranch)
    macs, auxiliary_macs = step.macs // recipe.data.batch_size, step.auxiliary_macs // recipe.data.batch_size
    return LearnerSize(
        summary.name,
        summary.blocks,
        step.body_activations,
        step.auxiliary_activations,
        parameters + auxiliary,
        parameters + auxiliary if beside else auxiliary,
        gradients,
        optimizer,
        {purpose: size for purpose, size in kept.items() if size},
        lasting,
        step.counter.peak,
        0 if beside else macs,
        macs + auxiliary_macs if beside else auxiliary_macs,
        step.forward_seconds,
        modelled_seconds(step.counter.macs, step.counter.moved),
        step.trunk,
        step.again_activations,
    )


class _Propagation(Propagation):
    """Forward and backward passes on the meta device, which lacks autocast."""

    precision = torch.float32

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return a block in which the networks compute in the recipe's precision."""
        return in_precision(self.precision)


class _Step:
    """One step of a learner on the meta device, by the forward and backward passes of the learner itself."""

    def __init__(self, learner: Learner, recipe: Recipe, facts: Facts, team: Team) -> None:
        body, objective, rows = learner.body.train(), learner.objective.train(), recipe.data.batch_size
        self.counter = CostCounter()
        ends = self._ends_of_forks(learner, recipe, facts)
        role, check = Role(learner.name, recipe.seed, learner.name), ImmediateCheck()
        numerics = dataclasses.replace(recipe.numerics, precision="float32")
        own = [*body.parameters(), *body.buffers(), *objective.parameters(), *objective.buffers()]
        memory = MemoryMeter(own, numerics)
        propagation = _Propagation(role, body, objective, numerics, _META, memory, check)
        propagation.precision = DTYPES[recipe.numerics.precision]
        kept = memory.live or SavedActivations(own)
        # Not step 0, in which some methods measure more.
        batch = Batch(np.empty(0), np.empty(0), np.empty(0), "train", 0, 1)
        features = [message for message in _messages(team, learner.name, "forward") if message.name != BATCH]
        heard = [*_messages(team, learner.name, "update"), *_messages(team, learner.name, "learn")]
        with self.counter, kept.counting(), in_precision(DTYPES[recipe.numerics.precision]):
            pixels = None
            if objective.needs_pixels or not features:
                pixels = torch.empty(rows, *facts.image_shape, device=_META)
            inputs = _tensor(features[0]) if features else (pixels + 0.0 if pixels is not None else None)
            assert inputs is not None
            if isinstance(learner, SideBranch):
                inputs.requires_grad_()
            if not objective.needs_pixels:
                pixels = None
            before = self._seconds()
            pending = propagation.run(batch, inputs)
            del inputs
            self.body_activations, self.macs = kept.bytes, self.counter.macs
            self.forward_seconds = self._seconds() - before
            self.trunk = (max(ends) - before) / self.forward_seconds if ends else 1.0
            labels = task_of(recipe, facts).zero_labels(rows, _META)
            messages = {message.name: _tensor(message) for message in heard}
            context = Context(labels, pixels, messages)
            value = propagation.value(pending, context)
            saved = kept.bytes
            self.auxiliary_activations = saved - self.body_activations
            value.total.backward()
            self.again_activations = memory.live.peak - saved if memory.live else 0
        lowered = in_precision(DTYPES[recipe.numerics.precision])
        objective.eval()
        with CostCounter(), lowered, torch.no_grad(), layer_macs(objective) as macs:
            propagation.value(pending, context)
        self.auxiliary_macs = sum(macs)

    def _seconds(self) -> float:
        return modelled_seconds(self.counter.macs, self.counter.moved)

    def _ends_of_forks(self, learner: Learner, recipe: Recipe, facts: Facts) -> list[float]:
        """Return a list that will hold the times at which the blocks with a branch are done, if there are any."""
        ends: list[float] = []

        def note(*_: Any) -> None:
            ends.append(self._seconds())

        branches = branches_of(recipe)
        if isinstance(learner, Trunk) and branches is not None:
            for block in forks_of(branches, facts, learner.body).values():
                learner.body.get_submodule(block).register_forward_hook(note)
        return ends


def _messages(team: Team, learner: str, phase: str) -> Iterator[Message]:
    """Yield what a phase of a learner takes, in the step in which most is exchanged."""
    program = max(team.training, key=lambda each: each.bytes_per_step)
    for call in program.calls:
        if (call.learner, call.phase) == (learner, phase):
            yield from (program.messages[name] for name in call.takes)


def _tensor(message: Message) -> Tensor:
    ((shape, dtype),) = message.parts
    return torch.empty(shape, dtype=getattr(torch, dtype), device=_META)


def _optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of an optimizer's state after its first step, which one parameter of each group takes here."""
    total = 0
    learned = [[each for each in group["params"] if each.grad is not None] for group in optimizer.param_groups]
    for group, parameters in zip(optimizer.param_groups, learned, strict=True):
        # The meta device has no fused kernels; the state is the same.
        group["fused"] = False
        for parameter in parameters[1:]:
            parameter.grad = None
    optimizer.step()
    for first, *others in filter(None, learned):
        for value in optimizer.state[first].values():
            if isinstance(value, Tensor):
                # As large as its parameter, or a counter.
                own = value.shape == first.shape
                total += sum(each.numel() if own else value.numel() for each in (first, *others)) * value.element_size()
        first.grad = None
    return total


def _seen_again(self_distillation: SelfDistillation | None, recipe: Recipe, facts: Facts) -> int:
    """Return the bytes of the images that are kept for the next step."""
    if not isinstance(self_distillation, LastBatch):
        return 0
    rows = 2 * recipe.data.batch_size
    numbers = np.zeros(rows, np.int64)
    pixels = torch.empty(rows, *facts.image_shape, device=_META)
    for step in range(2):
        self_distillation.passes(Batch(np.empty(0), numbers, numbers, "train", 0, step), pixels)
        if not step:
            self_distillation.finish(torch.empty(recipe.data.batch_size, facts.num_classes, device=_META))
    return self_distillation.bytes


def _self_distillation(recipe: Recipe, facts: Facts) -> SelfDistillation | None:
    """Return what a network remembers of the images itself; None where it remembers nothing."""
    method = method_of(recipe)
    if not isinstance(method, WholeNetwork):
        return None
    with _META:
        network = build_network(recipe, facts, recipe.seed)
    return method.self_distillation(Training(recipe, facts, 1, Role("network", recipe.seed, "segment0"), network))

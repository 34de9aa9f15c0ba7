"""Forward pass of a body, and the gradients of its losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones import run_without, scaled_branches
from engine.data import Batch
from engine.learners.finite import LossCheck
from engine.learners.hooks import OutputHooks, statistics_untracked
from engine.learners.loss_scaling import LossScaler
from engine.learners.memory import MemoryMeter
from engine.learners.numerics import DTYPES
from engine.learners.recomputation import Recomputation
from engine.learners.role import Role
from engine.learners.self_distillation.passes import FIRST, Pass, Passes, SelfDistillation
from engine.objectives import Context, Objective, ObjectiveValue
from engine.recipes import Numerics
from engine.streams import seeded

_UNSCALED: Mapping[str, float] = {}


@dataclass
class Pending:
    """What a forward pass leaves behind for the backward one."""

    batch: Batch
    pixels: Tensor | None
    inputs: Tensor | None
    output: Tensor
    predictions: Tensor | None
    hooked: dict[str, Tensor]
    passes: Passes | None = None

    @property
    def values(self) -> dict[str, Tensor]:
        """What can be told of the pass, each [B, ...], by what a `Role` calls it."""
        found = {**self.hooked, "features": self.output}
        return found if self.predictions is None else {**found, "predictions": self.predictions}


@dataclass(frozen=True)
class Learned:
    """What was learned in a step.

    Attributes:
        losses: unweighted, by term, and ``total``, scalars without graph; of several passes, their sums with the terms'
            factors.
        logits: [B, classes] of the first pass, without graph; None where the learner does not classify.
        observed: what the terms of the objective observed besides, by the name of the record.
    """

    losses: Mapping[str, Tensor]
    logits: Tensor | None
    observed: Mapping[str, Tensor] = field(default_factory=dict)


class Propagation:
    """Forward and backward passes of one body.

    Args:
        role: whose random stream it draws from.
        body: the blocks.
        objective: the loss on the body's output.
        numerics: precision of the computation, and what is run again on the way back.
        device: where it computes.
        memory: counts what autograd keeps.
        check: sees that the losses are finite.
    """

    def __init__(
        self,
        role: Role,
        body: nn.Sequential,
        objective: Objective,
        numerics: Numerics,
        device: torch.device,
        memory: MemoryMeter,
        check: LossCheck,
    ) -> None:
        self._role, self._body, self._objective = role, body, objective
        dtype = DTYPES[numerics.precision]
        self._dtype, self._device, self._memory = dtype, device, memory
        self._hooks = OutputHooks(body, objective.hooks)
        self.check = check
        self._recomputation: Recomputation | None = None
        if numerics.recomputed_blocks:
            self._recomputation = Recomputation(numerics.recomputed_blocks, device, self.autocast, memory)
        self.scaler = LossScaler(device.type, enabled=dtype == torch.float16)

    def draw_apart(self, replica: int) -> None:
        """Let replicas other than the first draw random numbers of their own: dropout must not repeat in all parts."""
        if replica:
            self._role = replace(self._role, stream=f"{self._role.stream} replica {replica}")

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return a block in which the networks compute in the recipe's precision."""
        # Devices without autocast exist: the planner runs a step on the meta device.
        if not torch.amp.is_autocast_available(self._device.type):
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)

    def _stream(self, batch: Batch, phase: str) -> Any:
        role = self._role
        return seeded(role.seed, role.stream, phase, batch.epoch, batch.step, device=self._device)

    def run(self, batch: Batch, inputs: Tensor, each: Pass | None = None) -> Pending:
        """Run the body on normalised images or features [B, ...]; without some blocks, where the pass says so."""
        # A pass has random numbers of its own; the first, those that a network which sees nothing else has.
        phase = "forward" if each is None or each.name == FIRST else f"forward {each.name}"
        with self._stream(batch, phase), self.autocast(), self._hooks.recording() as hooked:
            output = self._output(inputs, each)
            is_given = "predictions" in self._role.gives
            predictions = self._objective.predict(output) if is_given else None
        return Pending(batch, None, None, output, predictions, hooked)

    def _output(self, inputs: Tensor, each: Pass | None) -> Tensor:
        dropped, scales = ((), {}) if each is None else (each.dropped, each.scales)
        if self._recomputation is None and not (dropped or scales):
            whole: Tensor = self._body(inputs)
            return whole
        with scaled_branches(self._body, scales):
            if self._recomputation is None:
                return run_without(self._body, inputs, dropped)
            blocks = [block for name, block in self._body._modules.items() if name not in dropped]
            return self.through(blocks, inputs, ends=True, scales=scales)

    def through(
        self, blocks: Sequence[nn.Module], features: Tensor, ends: bool = False, scales: Mapping[str, float] = _UNSCALED
    ) -> Tensor:
        """Return what some blocks of the body give, one after the other, as a part of a forward pass.

        Args:
            blocks: each takes the output of the one before.
            features: what the first takes, [B, ...].
            ends: whether the body ends with them.
            scales: of residual branches, which are scaled already.
        """
        if self._recomputation is None:
            for block in blocks:
                features = block(features)
            return features
        # Behind a segment, a network of its own takes more than one block does, and not while that is run again.
        keeps_last = ends and not any(parameter.requires_grad for parameter in self._objective.parameters())
        return self._recomputation.run(blocks, features, lambda: scaled_branches(self._body, scales), keeps_last)

    def value(self, pending: Pending, context: Context, factors: Mapping[str, float] | None = None) -> ObjectiveValue:
        """Return the objective's value of a forward pass, with its graph; arguments as those of `learn`."""
        batch = pending.batch
        context = replace(context, hooked=pending.hooked, epoch=batch.epoch, step=batch.step)
        with self._stream(batch, "update"), self.autocast():
            found: ObjectiveValue = self._objective(pending.output, context, factors)
        return found

    def learn(
        self, pending: Pending, context: Context, factors: Mapping[str, float] | None = None, share: float = 1.0
    ) -> Learned:
        """Go backward from a forward pass, and add to the gradients.

        Args:
            pending: what the forward pass left.
            context: what the terms may look at; what the pass itself knows is filled in.
            factors: of the terms; see `Objective`.
            share: of the batch that these images are, by which the gradients are weighted.

        Raises:
            NotFinite: a loss is not finite; its gradients are not added. With a `DeferredCheck` it may be an earlier
                one, and they are.
        """
        value = self.value(pending, context, factors)
        losses = {name: loss.detach().float() for name, loss in (*value.losses.items(), ("total", value.total))}
        self.check.see(losses, pending.batch)
        total = value.total if share == 1.0 else value.total * share
        self.scaler.scale(self.check.spoiled(total) if self.scaler.is_enabled() else total).backward()
        return Learned(losses, value.logits, value.observed)

    def learn_all(
        self,
        pending: Pending,
        passes: Passes,
        self_distillation: SelfDistillation,
        heard: Mapping[str, Tensor],
        prepare: Callable[[Tensor], Tensor],
    ) -> Learned:
        """Run what the network wants to see besides, and learn from every pass in turn.

        Args:
            pending: what the first pass left.
            passes: of this step.
            self_distillation: which planned them.
            heard: messages of others.
            prepare: turns pixels [B, C, H, W] into what the body takes.

        Raises:
            NotFinite: as `learn`.
        """
        said: dict[str, Tensor] = {}
        for each in passes.consulted:
            tracked = contextlib.nullcontext() if each.tracked else statistics_untracked(self._body)
            with torch.no_grad(), tracked:
                consulted = self.run(pending.batch, prepare(each.pixels), each)
                said[each.name] = self._predictions(consulted)
        losses: dict[str, Tensor] = {}
        observed: dict[str, Tensor] = {}
        for each in (passes.first, *passes.further):
            is_first = each is passes.first
            if not is_first:
                pending = self.run(pending.batch, prepare(each.pixels), each)
            predictions = self._predictions(pending)
            recalled = self_distillation.recall(each, predictions.detach(), said)
            messages = {**heard, **said, **each.messages, **recalled}
            context = Context(each.labels, each.pixels, messages, predictions, mixed=each.mixed)
            # Later passes hold no more than the first, whose graph is gone by then.
            with self._memory.counting() if is_first else contextlib.nullcontext():
                learned = self.learn(pending, context, each.terms)
            for name, value in learned.losses.items():
                factor = 1.0 if each.terms is None or name == "total" else each.terms[name]
                weighted = factor * value.double()
                losses[name] = losses[name] + weighted if name in losses else weighted
            observed |= learned.observed
            said[each.name] = predictions.detach()
        return Learned(losses, said[passes.first.name], observed)

    def _predictions(self, pending: Pending) -> Tensor:
        with self.autocast():
            predictions = self._objective.predict(pending.output)
        assert predictions is not None, "a network that teaches itself must classify"
        return predictions

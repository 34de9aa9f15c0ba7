"""A learner, which one actor owns: a body, its auxiliary networks, objective, optimizer and random stream.

A learner does not know whether its messages came from a neighbour in the process or across a network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoints import LearnerState
from engine.data import Batch, Facts, on_device
from engine.errors import LearnerError
from engine.learners.codistillation import Codistillation
from engine.learners.evaluation import Evaluation
from engine.learners.finite import ImmediateCheck, NotFinite, loss_check
from engine.learners.frozen_peers import FrozenPeer, FrozenPeers
from engine.learners.inputs import Inputs
from engine.learners.labels import Labels
from engine.learners.member import Member, PhaseFunction, place_of
from engine.learners.memory import MemoryMeter
from engine.learners.meters import Meters, Timeline
from engine.learners.numerics import DTYPES
from engine.learners.optimization import make_optimizer
from engine.learners.outputs import Outputs
from engine.learners.propagation import Learned, Pending, Propagation
from engine.learners.replicas import Replicas, name_without_replica
from engine.learners.role import Role
from engine.learners.self_distillation.passes import SelfDistillation
from engine.learners.state import StateKeeper
from engine.learners.updates import Updates
from engine.objectives import Context, Objective
from engine.recipes import Recipe
from engine.tasks import task_of

# With blocks left out at random, in how many steps the largest is looked for.
_MEASURED_STEPS = 20


class Learner(Member):
    """Trains a body with a local objective.

    Args:
        name: unique in its team, such as ``segment0``.
        role: what sets it apart from the others of its team.
        body: blocks of the backbone, in order.
        objective: the loss on the body's output, with its auxiliary networks.
        recipe: what is trained; of a cohort, with what this peer has of its own.
        facts: what is known of the data.
        steps_per_epoch: optimizer steps in an epoch.
        device: where to compute.
        frozen_peers: copies of other networks, by the name of the message that brings their weights.
        self_distillation: how the network teaches itself, if it does.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        body: nn.Sequential,
        objective: Objective,
        recipe: Recipe,
        facts: Facts,
        steps_per_epoch: int,
        device: torch.device,
        frozen_peers: Mapping[str, FrozenPeer] | None = None,
        self_distillation: SelfDistillation | None = None,
    ) -> None:
        super().__init__(name, device)
        self._role, self._task = role, task_of(recipe, facts)
        self._inputs, self._dtype = Inputs(recipe, facts, self._task, device), DTYPES[recipe.numerics.precision]
        self.body = self._inputs.placed(body)
        self.objective = self._inputs.placed(objective)
        self._frozen = FrozenPeers(frozen_peers or {})
        for copy in self._frozen.bodies:
            self._inputs.placed(copy)
        self._self_distillation = self_distillation
        self._named = dict(self.body.named_parameters(prefix="body"))
        self._named |= dict(self.objective.named_parameters(prefix="auxiliary"))
        self.optimizer = make_optimizer(recipe.optimizer, self._named.values())
        self._meters, self._timeline = Meters(), Timeline()
        self._pending: Pending | None = None
        own = [*self._named.values(), *self.body.buffers(), *self.objective.buffers()]
        self._memory = MemoryMeter(own, recipe.numerics, 1 if self_distillation is None else _MEASURED_STEPS)
        check = loss_check(device, self.optimizer, at_once=role.may_leave or self.passes_gradients_on)
        self._propagation = Propagation(role, self.body, self.objective, recipe.numerics, device, self._memory, check)
        self._steps, self._outputs = 0, Outputs(role.gives, self._dtype, device)
        body, objective, frozen, meters = self.body, self.objective, self._frozen, self._meters
        inputs, propagation, outputs, task = self._inputs, self._propagation, self._outputs, self._task
        self._updates = Updates(recipe, steps_per_epoch, self.optimizer, self._named.values(), inputs, propagation)
        self._state = StateKeeper(body, objective, self.optimizer, self._named, frozen, self_distillation)
        self._codistillation = Codistillation(body, objective, inputs, propagation, outputs, frozen)
        self._evaluation = Evaluation(body, role.network, task, inputs, propagation, outputs, meters, self._dtype)
        if recipe.numerics.compile:
            self.body.compile()
            self.objective.compile()

    passes_gradients_on = False
    """Whether other learners compute with its gradients, which must not come from a loss that is not finite."""

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        """What it can do, by name."""
        return {
            "forward": self.forward,
            "update": self.update,
            "restate": self._codistillation.restate,
            "publish": self._codistillation.publish,
            "adopt": self._codistillation.adopt,
            "recalibrate": self._evaluation.recalibrate,
            "infer": self._evaluation.infer,
            "score": self._evaluation.score,
            "score_together": self._evaluation.score_together,
        }

    def forward(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body on the batch's images, or on the features that the segment before gave.

        Args:
            batch: the images, uint8 [B, C, H, W], and their labels, as the task has them.
            messages: nothing, or the features [B, ...], without a graph; never written to.

        Returns:
            what the role gives, detached, in the recipe's precision; NaN once the learner has left its cohort.
        """
        self._meters.resume()
        features = next(iter(messages.values()), None)
        watched = self._role.may_leave and self._outputs.diverged is None and self._outputs.shapes
        # Here the device is waited for: what the learner gives depends on the answer.
        if watched and features is not None and not features.isfinite().all():
            self._leave(f"the features that it takes are not finite in {place_of(batch)}")
        if self._outputs.diverged is not None:
            return self._outputs.nothing(self._outputs.gives, len(batch.labels))
        if not self.body.training:
            self.body.train()
        pixels = None
        if features is None or self.objective.needs_pixels:
            pixels = self._inputs.training_pixels(batch)
        passes = None
        if self._self_distillation is not None and pixels is not None:
            passes = self._self_distillation.passes(batch, pixels)
            pixels = passes.first.pixels
        inputs = self._inputs.prepared(pixels, features)
        version = inputs._version
        with self._memory.counting():
            pending = self._propagation.run(batch, inputs, passes.first if passes is not None else None)
        if inputs._version != version:
            raise LearnerError(
                self.name,
                f"block {next(iter(dict(self.body.named_children())))!r} changes its input in place, which would "
                "change the message for all who read it; make the first operation of each block out of place",
            )
        pending.pixels = pixels if self.objective.needs_pixels else None
        pending.inputs = inputs if self._frozen else None
        pending.passes = passes
        self._pending = pending
        return self._outputs.of(self._outputs.gives, pending.values)

    def update(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Compute the objective on what `forward` left, go backward, and step the optimizer.

        Args:
            batch: not needed; that of the last `forward` is meant.
            messages: what the terms of the objective take from other learners, by name.

        Raises:
            NotFinite: a loss term is not finite, and the learner may not leave; raised before the weights change.
        """
        if self._outputs.diverged is not None:
            return ()
        pending, self._pending = self._pending, None
        assert pending is not None, "update without a forward before it"
        batch = pending.batch
        heard = dict(messages)
        if pending.inputs is not None:
            with self._propagation.autocast():
                heard |= self._frozen.predictions(pending.inputs, batch, self._dtype)
        labels = self._inputs.labels(batch)
        try:
            if self._self_distillation is None or pending.passes is None:
                with self._memory.counting():
                    context = Context(labels.own, pending.pixels, heard, pending.predictions)
                    learned = self._propagation.learn(pending, context, labels.factors(self.objective), labels.share)
            else:
                passes, own, found = pending.passes, self._self_distillation, pending.passes.first.labels
                labels = Labels(found, self._task.labelled(found), mixed=passes.first.mixed)
                own.hear(batch, messages)
                learned = self._propagation.learn_all(pending, passes, own, heard, self._inputs.prepared)
        except NotFinite as error:
            if not self._role.may_leave:
                raise
            self._leave(str(error))
            return ()
        self._step(batch, learned, labels)
        if self._self_distillation is not None and learned.logits is not None:
            self._self_distillation.finish(learned.logits)
            self._meters.observe(self._self_distillation.observed())
            return self._self_distillation.told()
        return ()

    def _step(self, batch: Batch, learned: Learned, labels: Labels) -> None:
        """Step the optimizer with the gradients that are there, and note what was learned."""
        observed = self._updates.step(batch) | {name: value.float() for name, value in learned.observed.items()}
        known = self._self_distillation.bytes if self._self_distillation is not None else 0
        kept = {"copies_of_peers": self._frozen.bytes, "knowledge": known}
        self._memory.measure(self._named, self.optimizer, kept)
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        labels.count(self._meters, learned.losses, labels.hits(self._task, learned.logits), self.objective)
        self._meters.observe(observed)

    def ask_metrics(self) -> dict[str, float]:
        """Return what was seen since the last report: `Meters.report`, ``learning_rate``, in float16 ``loss_scale``."""
        self._propagation.check.settle()
        scaled = self._propagation.scaler.settle()
        values = self._meters.report()
        if values:
            values |= scaled
            values["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
            values["memory_bytes"] = float(self._memory.report(self.device)["total"])
        return values

    def ask_score(self) -> dict[str, dict[str, float]]:
        """Return the scores of the evaluation batches since the last question, by network; `ensemble` is of all."""
        self._propagation.check.settle()
        return self._evaluation.scores()

    def ask_features(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return features [N, D] and labels [N] that the score has kept, by network; nothing if it keeps none."""
        return self._evaluation.features()

    def ask_memory(self) -> dict[str, int]:
        """Return bytes by purpose; ``total`` is the device's own peak on a GPU and the sum on a CPU."""
        return self._memory.report(self.device)

    def ask_timeline(self) -> dict[str, Any]:
        """Return when the last calls ran, and where; as `Timeline.report`."""
        return self._timeline.report()

    def ask_diverged(self) -> str | None:
        """Return why the learner has left its cohort; None while it trains."""
        return self._outputs.diverged

    def ask_state(self) -> LearnerState:
        """Return a copy of all that training changes."""
        self._propagation.check.settle()
        extra = {
            "meters": self._meters.state(),
            "memory": self._memory.state(),
            "scaler": self._propagation.scaler.state_dict(),
            "diverged": self._outputs.diverged,
            "shapes": self._outputs.shapes,
        }
        return self._state.save(self._steps, extra)

    def restore(self, state: LearnerState) -> None:
        """Take up the state that `ask_state` returned."""
        extra = self._state.restore(state)
        self._steps = extra["steps"]
        self._meters.load_state(extra["meters"])
        self._memory.load_state(extra["memory"])
        if extra["scaler"]:
            self._propagation.scaler.load_state_dict(extra["scaler"])
        self._outputs.diverged, self._outputs.shapes = extra["diverged"], dict(extra["shapes"])

    def join(self, replicas: Replicas) -> None:
        """Train from now on with other actors that hold the same learner, each on its rows of every batch."""
        self._inputs.replicas = replicas
        # Gradients of one go to all, so all must hear before the step.
        self._propagation.check = ImmediateCheck()
        replicas.synchronise_norms(self.body, self.objective)
        self._propagation.draw_apart(replicas.index)

    def part(self) -> None:
        """Tell the replicas that this one has ended."""
        self._inputs.part()

    def _leave(self, reason: str) -> None:
        self._outputs.diverged, self._pending = reason, None

    def received(self, messages: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return messages on the device, by names without replicas."""
        return {name_without_replica(name): on_device(tensor, self.device) for name, tensor in messages.items()}

    def call(self, phase: str, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run one phase as any `Member`, and note when."""
        started = time.perf_counter()
        given = super().call(phase, batch, messages)
        ended = time.perf_counter()
        self._meters.work(ended - started)
        self._timeline.add(phase, batch, started, ended)
        return given

"""What one actor owns: a body, its auxiliary networks, its objective, its optimizer and its random stream.

A learner does not know whether its messages came from a neighbour in the process or across a network.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import Augmenter, Batch, Facts
from engine.errors import EngineError, LearnerError
from engine.learners.failures import NotFinite, explain
from engine.learners.frozen_peers import FrozenPeer, FrozenPeers, flat_weights
from engine.learners.memory import MemoryMeter
from engine.learners.meters import Meters, Timeline
from engine.learners.numerics import DTYPES
from engine.learners.optimization import learning_rate_at, make_optimizer
from engine.learners.propagation import Learned, Pending, Propagation
from engine.learners.recalibration import Recalibration
from engine.learners.replicas import Replicas, name_without_replica
from engine.learners.role import Role, Stated
from engine.learners.state import LearnerState, pack_state, unpack_state
from engine.learners.statements import Statements
from engine.learners.taps import statistics_untracked
from engine.learners.teaching.passes import Teaching
from engine.objectives import Context, Objective
from engine.recipes import Recipe
from engine.tasks import task_of

# With blocks left out at random, in how many steps the largest is looked for.
_MEASURED_STEPS = 20


class Learner:
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
        teaching: how the network teaches itself, if it does.
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
        teaching: Teaching | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self._role = role
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch
        self._format = torch.channels_last if recipe.numerics.channels_last else torch.contiguous_format
        self._dtype = DTYPES[recipe.numerics.precision]
        self.body = self._placed(body)
        self.objective = self._placed(objective)
        self._frozen = FrozenPeers(frozen_peers or {})
        for copy in self._frozen.bodies:
            self._placed(copy)
        self._teaching = teaching
        self._recalibration: Recalibration | None = None
        self._replicas: Replicas | None = None
        self._named = dict(self.body.named_parameters(prefix="body"))
        self._named |= dict(self.objective.named_parameters(prefix="auxiliary"))
        self.optimizer = make_optimizer(recipe.optimizer, self._named.values())
        self._augmenter = Augmenter(recipe.data.augmentation, facts, recipe.seed, device)
        self._meters = Meters()
        self._timeline = Timeline()
        self._task = task_of(recipe, facts)
        self._score, self._together = self._task.score(), self._task.common_score()
        self._pending: Pending | None = None
        own = [*self._named.values(), *self.body.buffers(), *self.objective.buffers()]
        self._memory = MemoryMeter(own, 1 if teaching is None else _MEASURED_STEPS)
        self._propagation = Propagation(role, self.body, self.objective, self._dtype, device, self._memory)
        self._steps = 0
        self._known_at: int | None = None
        self._departure: str | None = None
        self._statements = Statements(role.states, self._dtype, device)
        if recipe.numerics.compile:
            self.body.compile()
            self.objective.compile()

    # Phases of a step: named by the program's calls.

    def forward(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body on the batch's images, or on the features that the segment before gave.

        Args:
            batch: the images, uint8 [B, C, H, W], and their labels, as the task has them.
            messages: nothing, or the features [B, ...], without a graph; never written to.

        Returns:
            what the role states, detached, in the recipe's precision; NaN once the learner has left its cohort.
        """
        self._meters.resume()
        features = next(iter(messages.values()), None)
        watched = self._role.may_leave and self._departure is None and self._statements.shapes
        if watched and features is not None and not features.isfinite().all():
            self._leave(f"the features that it takes are not finite in {_place(batch)}")
        if self._departure is not None:
            return self._statements.nothing(self._statements.states, len(batch.labels))
        if not self.body.training:
            self.body.train()
        pixels = None
        if features is None or self.objective.needs_pixels:
            pixels = self._own_rows(self._augmenter.training_pixels(batch))
        passes = None
        if self._teaching is not None and pixels is not None:
            passes = self._teaching.passes(batch, pixels)
            pixels = passes.first.pixels
        inputs = self._inputs(pixels, features)
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
        return self._stated(self._statements.states, pending)

    def update(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Compute the objective on what `forward` left, go backward, and step the optimizer.

        Args:
            batch: not needed; the batch of the last `forward` is meant.
            messages: what the terms of the objective take from other learners, by name.

        Raises:
            LearnerError: a loss term is not finite, and the learner may not leave; raised before the weights change.
        """
        if self._departure is not None:
            return ()
        pending, self._pending = self._pending, None
        assert pending is not None, "update without a forward before it"
        batch = pending.batch
        heard = dict(messages)
        if pending.inputs is not None:
            with self._propagation.autocast():
                heard |= self._frozen.predictions(pending.inputs, batch, self._dtype)
        labels = self._own_rows(self._task.training_labels(batch, self._augmenter).to(self.device))
        try:
            if self._teaching is None or pending.passes is None:
                with self._memory.counting():
                    context = Context(labels, pending.pixels, heard, pending.predictions)
                    learned = self._propagation.learn(pending, context, share=len(labels) / len(batch.labels))
            else:
                labels, passes = pending.passes.first.labels, pending.passes
                self._teaching.hear(batch, messages)
                learned = self._propagation.learn_all(pending, passes, self._teaching, heard, self._inputs)
        except NotFinite as error:
            if not self._role.may_leave:
                raise LearnerError(self.name, str(error)) from None
            self._leave(str(error))
            return ()
        self._step(batch, learned, labels)
        if self._teaching is not None and learned.logits is not None:
            self._teaching.finish(learned.logits)
            self._meters.observe(self._teaching.observed())
            return self._teaching.told()
        return ()

    def _step(self, batch: Batch, learned: Learned, labels: Tensor) -> None:
        """Step the optimizer with the gradients that are there, and note what was learned."""
        rate = learning_rate_at(self._recipe, self._steps_per_epoch, batch.epoch, batch.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._replicas is not None:
            self._replicas.add_up(self._named.values())
        self._propagation.scaler.step(self.optimizer)
        self._propagation.scaler.update()
        kept = {"copies_of_peers": self._frozen.bytes, "knowledge": self._teaching.bytes if self._teaching else 0}
        self._memory.measure(self._named, self.optimizer, kept)
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        hits = self._task.hits(learned.logits, labels) if learned.logits is not None else None
        counts = (len(labels), None if hits is None else int(hits), int(self._task.labelled(labels)))
        self._meters.add(learned.losses, *counts, self.objective.need_labels)
        if learned.observed:
            values = torch.stack([value.float() for value in learned.observed.values()]).tolist()
            self._meters.observe(dict(zip(learned.observed, values, strict=True)))

    def restate(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """State predictions anew after `update`, for peers that learn later in the step (paper, Algorithm 1).

        Like `forward` in all but the weights: the same images, features and random numbers. It leaves no trace:
        running statistics of batch norms stay as after one forward.
        """
        if self._departure is not None:
            return self._statements.nothing(self._statements.restated, len(batch.labels))
        features = next(iter(messages.values()), None)
        pixels = self._own_rows(self._augmenter.training_pixels(batch)) if features is None else None
        inputs = self._inputs(pixels, features)
        with torch.no_grad(), statistics_untracked(self.body, self.objective):
            return self._stated(self._statements.restated, self._propagation.run(batch, inputs))

    def publish(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Give all weights of the body, float32 [N]; NaN once the learner has left its cohort."""
        weights = flat_weights(self.body)
        return (weights if self._departure is None else torch.full_like(weights, math.nan),)

    def adopt(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Put the weights that peers published into the copies of them."""
        self._frozen.adopt(messages)
        return ()

    def recalibrate(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Add training images to those from which the batch norms' statistics are measured anew.

        The next evaluation takes them up; training, which uses the statistics of each batch, does not notice.
        """
        self._meters.pause()
        if self._recalibration is None:
            self._recalibration = Recalibration(self.body)
        with self._propagation.autocast():
            self._recalibration.add(self._inputs(self._augmenter.training_pixels(batch)))
        return ()

    def infer(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body in evaluation mode; heads and decoders take no part."""
        self._meters.pause()
        if self._recalibration is not None:
            self._recalibration.finish()
            self._recalibration = None
        features = next(iter(messages.values()), None)
        if self.body.training:
            self.body.eval()
        pixels = self._augmenter.evaluation_pixels(batch) if features is None else None
        with torch.no_grad(), self._propagation.autocast():
            return (self.body(self._inputs(pixels, features)).detach().to(self._dtype),)

    def score(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body, which ends with the network's last block, and add what it gives to the score.

        Returns:
            the network's output, such as class logits [B, classes]; NaN once the learner has left its cohort.
        """
        (logits,) = self.infer(batch, messages)
        self._score.update(logits.float().cpu(), torch.from_numpy(batch.labels))
        return (logits if self._departure is None else torch.full_like(logits, math.nan),)

    def score_together(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Add the outputs of all networks of the cohort, such as logits [B, classes], to their common score."""
        assert self._together is not None, "the task has no common score"
        self._together.update({n: each.float().cpu() for n, each in messages.items()}, torch.from_numpy(batch.labels))
        return ()

    # Questions, asked between steps.

    def ask_metrics(self) -> dict[str, float]:
        """Return what was seen since the last report; names as in `Meters.report`, and ``learning_rate``."""
        values = self._meters.report()
        if values:
            values["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
            values["memory_bytes"] = float(self._memory.report(self.device)["total"])
        return values

    def ask_score(self) -> dict[str, dict[str, float]]:
        """Return the scores of the evaluation batches since the last question, by network; `ensemble` is of all."""
        scores = {self._role.network: self._score, "ensemble": self._together}
        self._score, self._together = self._task.score(), self._task.common_score()
        return {network: score.result() for network, score in scores.items() if score is not None and score.images}

    def ask_memory(self) -> dict[str, int]:
        """Return bytes by purpose; ``total`` is the device's own peak on a GPU and the sum on a CPU."""
        return self._memory.report(self.device)

    def ask_timeline(self) -> dict[str, Any]:
        """Return when the last calls ran, and where; as `Timeline.report`."""
        return self._timeline.report()

    def ask_departure(self) -> str | None:
        """Return why the learner has left its cohort; None while it trains."""
        return self._departure

    def ask_state(self) -> LearnerState:
        """Return a copy of all that training changes."""
        extra = {
            "steps": self._steps,
            "meters": self._meters.state(),
            "memory": self._memory.state(),
            "scaler": self._propagation.scaler.state_dict(),
            "departure": self._departure,
            "shapes": self._statements.shapes,
        }
        state = pack_state(self.body, self.objective, self.optimizer, self._named, extra)
        state.tensors.update(self._frozen.state())
        if self._teaching is not None:
            state.tensors.update({f"teaching.{name}": value for name, value in self._teaching.state().items()})
            state.knowledge, state.extra["knowledge_follows"] = self._teaching.knowledge(), self._known_at
            self._known_at = self._steps
        return state

    def restore(self, state: LearnerState) -> None:
        """Take up the state that `ask_state` returned."""
        extra = unpack_state(state, self.body, self.objective, self.optimizer, self._named)
        self._steps = extra["steps"]
        self._meters.load_state(extra["meters"])
        self._memory.load_state(extra["memory"])
        if extra["scaler"]:
            self._propagation.scaler.load_state_dict(extra["scaler"])
        self._departure, self._statements.shapes = extra["departure"], dict(extra["shapes"])
        self._frozen.restore(state.tensors)
        if self._teaching is not None:
            prefix = "teaching."
            kept = {name[len(prefix) :]: value for name, value in state.tensors.items() if name.startswith(prefix)}
            self._teaching.restore(kept)
            self._teaching.restore_knowledge(state.knowledge)
            self._known_at = self._steps

    def join(self, replicas: Replicas) -> None:
        """Train from now on with other actors that hold the same learner, each on its rows of every batch."""
        self._replicas = replicas
        replicas.synchronise_norms(self.body, self.objective)
        self._propagation.draw_apart(replicas.index)

    def part(self) -> None:
        """Tell the replicas that this one has ended."""
        if self._replicas is not None:
            self._replicas.part()

    def _own_rows(self, whole: Tensor) -> Tensor:
        """Return the rows of a batch [B, ...] that this learner trains on; all of them where it has no replicas."""
        return whole if self._replicas is None else self._replicas.rows(whole)

    def _placed(self, module: Any) -> Any:
        return module.to(self.device, memory_format=self._format)

    def _stated(self, names: tuple[Stated, ...], pending: Pending) -> tuple[Tensor, ...]:
        values = {**pending.tapped, "features": pending.output}
        if pending.predictions is not None:
            values["predictions"] = pending.predictions
        return self._statements.state(names, values)

    def _leave(self, reason: str) -> None:
        self._departure, self._pending = reason, None

    def _inputs(self, pixels: Tensor | None, features: Tensor | None = None) -> Tensor:
        if features is None:
            assert pixels is not None
            inputs = self._augmenter.normalise(pixels)
        else:
            inputs = features
        return inputs.contiguous(memory_format=self._format) if inputs.dim() == 4 else inputs

    def call(self, phase: str, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run one phase, and make every error name this learner.

        Args:
            phase: name of a phase, such as ``forward``.
            batch: the batch, where the call takes it.
            messages: the other messages that the call takes, by name and in its order.

        Raises:
            LearnerError: whatever went wrong, with the original traceback in ``details``.
        """
        started = time.perf_counter()
        try:
            here = {name_without_replica(name): tensor.to(self.device) for name, tensor in messages.items()}
            given: tuple[Tensor, ...] = getattr(self, phase)(batch, here)
        except EngineError:
            raise
        except Exception as error:
            place = f" of {_place(batch)}" if batch is not None else ""
            raise LearnerError(self.name, f"{phase}{place}: {explain(error)}", traceback.format_exc()) from error
        ended = time.perf_counter()
        self._meters.work(ended - started)
        self._timeline.add(phase, batch, started, ended)
        return given


def _place(batch: Batch) -> str:
    return f"epoch {batch.epoch + 1}, step {batch.step + 1}"

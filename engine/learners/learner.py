"""What one actor owns: a body, its auxiliary networks, its objective, its optimizer and its random stream.

A learner does not know whether its messages came from a neighbour in the process or across a network.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import Augmenter, Batch, Facts
from engine.errors import EngineError, LearnerError
from engine.learners.memory import SavedActivations, tensor_bytes
from engine.learners.meters import Meters
from engine.learners.numerics import DTYPES
from engine.learners.optimization import learning_rate_at, make_optimizer
from engine.learners.state import LearnerState, pack_state, unpack_state
from engine.objectives import Context, Objective
from engine.recipes import Recipe
from engine.streams import seeded
from engine.tasks import ClassificationScore


@dataclass
class _Pending:
    """What `forward` leaves behind for `update`."""

    batch: Batch
    pixels: Tensor | None
    output: Tensor


class Learner:
    """Trains a body with a local objective.

    Args:
        name: unique in its team, such as ``segment0``.
        body: blocks of the backbone, in order.
        objective: the loss on the body's output, with its auxiliary networks.
        recipe: what is trained.
        facts: what is known of the data.
        steps_per_epoch: optimizer steps in an epoch.
        device: where to compute.
    """

    def __init__(
        self,
        name: str,
        body: nn.Sequential,
        objective: Objective,
        recipe: Recipe,
        facts: Facts,
        steps_per_epoch: int,
        device: torch.device,
    ) -> None:
        self.name = name
        self.device = device
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch
        self._format = torch.channels_last if recipe.numerics.channels_last else torch.contiguous_format
        self._dtype = DTYPES[recipe.numerics.precision]
        self.body = body.to(device, memory_format=self._format)  # type: ignore[call-overload]
        self.objective = objective.to(device, memory_format=self._format)  # type: ignore[call-overload]
        self._named = dict(self.body.named_parameters(prefix="body"))
        self._named |= dict(self.objective.named_parameters(prefix="auxiliary"))
        self.optimizer = make_optimizer(recipe.optimizer, self._named.values())
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.numerics.precision == "float16")
        self._augmenter = Augmenter(recipe.data.augmentation, facts, recipe.seed, device)
        self._meters = Meters()
        self._score = ClassificationScore(facts.num_classes)
        self._pending: _Pending | None = None
        self._saved: SavedActivations | None = SavedActivations(
            [*self._named.values(), *self.body.buffers(), *self.objective.buffers()]
        )
        self._memory: dict[str, int] = {}
        self._steps = 0
        if recipe.numerics.compile:
            self.body.compile()
            self.objective.compile()

    # Phases of a step: named by the program's calls.

    def forward(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body on the batch's images, or on the features that the segment before gave.

        Args:
            batch: the images, uint8 [B, C, H, W], and their labels.
            messages: nothing, or the features [B, ...], without a graph; never written to.

        Returns:
            the output, detached, in the recipe's precision, for whoever takes it.
        """
        self._meters.resume()
        features = next(iter(messages.values()), None)
        if not self.body.training:
            self.body.train()
        pixels = None
        if features is None or self.objective.needs_pixels:
            pixels = self._augmenter.training_pixels(batch)
        inputs = self._inputs(pixels, features)
        version = inputs._version
        with self._stream(batch, "forward"), self._autocast(), self._counted():
            output = self.body(inputs)
        if inputs._version != version:
            raise LearnerError(
                self.name,
                f"block {next(iter(dict(self.body.named_children())))!r} changes its input in place, which would "
                "change the message for all who read it; make the first operation of each block out of place",
            )
        self._pending = _Pending(batch, pixels if self.objective.needs_pixels else None, output)
        return (output.detach().to(self._dtype),)

    def update(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Compute the objective on what `forward` left, go backward, and step the optimizer.

        Args:
            batch: not needed; the batch of the last `forward` is meant.
            messages: what the terms of the objective take from other learners, by name.

        Raises:
            LearnerError: a loss term is not finite; raised before the weights change.
        """
        pending, self._pending = self._pending, None
        assert pending is not None, "update without a forward before it"
        batch = pending.batch
        labels = torch.from_numpy(batch.labels).to(self.device)
        rate = learning_rate_at(self._recipe, self._steps_per_epoch, batch.epoch, batch.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self._stream(batch, "update"), self._autocast(), self._counted():
            value = self.objective(pending.output, Context(labels, pending.pixels, dict(messages)))
        losses = self._finite_losses(value.losses, value.total, batch)
        self._scaler.scale(value.total).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._saved is not None:
            self._measure_memory(self._saved)
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        hits = None
        if value.logits is not None:
            hits = int((value.logits.detach().argmax(1) == labels).sum())
        self._meters.add(losses, len(batch.labels), hits)
        return ()

    def infer(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body in evaluation mode; heads and decoders take no part."""
        self._meters.pause()
        features = next(iter(messages.values()), None)
        if self.body.training:
            self.body.eval()
        pixels = self._augmenter.evaluation_pixels(batch) if features is None else None
        with torch.no_grad(), self._autocast():
            return (self.body(self._inputs(pixels, features)).detach().to(self._dtype),)

    def score(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the body, which ends with the classifier, and add its predictions to the score."""
        (logits,) = self.infer(batch, messages)
        self._score.update(logits.float().cpu(), torch.from_numpy(batch.labels))
        return ()

    # Questions, asked between steps.

    def ask_metrics(self) -> dict[str, float]:
        """Return what was seen since the last report; names as in `Meters.report`, and ``learning_rate``."""
        values = self._meters.report()
        if values:
            values["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
            values["memory_bytes"] = float(self.peak_memory()["total"])
        return values

    def ask_score(self) -> dict[str, float]:
        """Return the score of the evaluation batches since the last question; empty where none was scored."""
        score, self._score = self._score, ClassificationScore(self._score.num_classes)
        return score.result() if score.images else {}

    def ask_memory(self) -> dict[str, int]:
        """Return bytes by purpose; ``total`` is the device's own peak on a GPU and the sum on a CPU."""
        return self.peak_memory()

    def ask_state(self) -> LearnerState:
        """Return a copy of all that training changes."""
        extra = {
            "steps": self._steps,
            "meters": self._meters.state(),
            "memory": self._memory,
            "scaler": self._scaler.state_dict(),
        }
        return pack_state(self.body, self.objective, self.optimizer, self._named, extra)

    def restore(self, state: LearnerState) -> None:
        """Take up the state that `ask_state` returned."""
        extra = unpack_state(state, self.body, self.objective, self.optimizer, self._named)
        self._steps = extra["steps"]
        self._meters.load_state(extra["meters"])
        if extra["memory"]:
            # Measured on the run's first batch; the first after a resumption may be the small last one of an epoch.
            self._memory, self._saved = dict(extra["memory"]), None
        if extra["scaler"]:
            self._scaler.load_state_dict(extra["scaler"])

    def peak_memory(self) -> dict[str, int]:
        """Return the memory measured so far, in bytes."""
        memory = dict(self._memory)
        if self.device.type == "cuda":
            memory["total"] = torch.cuda.max_memory_allocated(self.device)
            memory["reserved"] = torch.cuda.max_memory_reserved(self.device)
        else:
            memory["total"] = sum(memory.values())
        return memory

    def _inputs(self, pixels: Tensor | None, features: Tensor | None) -> Tensor:
        if features is None:
            assert pixels is not None
            inputs = self._augmenter.normalise(pixels)
        else:
            inputs = features
        return inputs.contiguous(memory_format=self._format) if inputs.dim() == 4 else inputs

    def _stream(self, batch: Batch, phase: str) -> Any:
        return seeded(self._recipe.seed, self.name, phase, batch.epoch, batch.step, device=self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)

    def _counted(self) -> Any:
        return self._saved.counting() if self._saved is not None else contextlib.nullcontext()

    def _finite_losses(self, losses: dict[str, Tensor], total: Tensor, batch: Batch) -> dict[str, float]:
        # One transfer for all terms: on a GPU each would wait for the device.
        names = [*losses, "total"]
        values = torch.stack([*(loss.detach().float() for loss in losses.values()), total.detach().float()])
        found = dict(zip(names, values.tolist(), strict=True))
        for name, value in found.items():
            if not (-float("inf") < value < float("inf")):
                indices = ", ".join(map(str, batch.indices[:5].tolist()))
                raise LearnerError(
                    self.name,
                    f"loss term {name!r} is {value} in epoch {batch.epoch + 1}, step {batch.step + 1} "
                    f"(batch of {len(batch.labels)} images, indices {indices}, ...); training stopped before the "
                    "weights changed. Lower optimizer.learning_rate or the weight of this term",
                )
        return found

    def _measure_memory(self, saved: SavedActivations) -> None:
        slots = [value for slots in self.optimizer.state.values() for value in slots.values()]
        self._memory = {
            "saved_activations": saved.bytes,
            "parameters": tensor_bytes(self._named.values()),
            "gradients": tensor_bytes(p.grad for p in self._named.values() if p.grad is not None),
            "optimizer": tensor_bytes(value for value in slots if isinstance(value, Tensor)),
        }
        self._saved = None

    def call(self, phase: str, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run one phase, and make every error name this learner.

        Args:
            phase: name of a phase: ``forward``, ``update``, ``infer`` or ``score``.
            batch: the batch, where the call takes it.
            messages: the other messages that the call takes, by name and in its order.

        Raises:
            LearnerError: whatever went wrong, with the original traceback in ``details``.
        """
        started = time.perf_counter()
        try:
            here = {name: tensor.to(self.device) for name, tensor in messages.items()}
            given: tuple[Tensor, ...] = getattr(self, phase)(batch, here)
        except EngineError:
            raise
        except Exception as error:
            place = f" of epoch {batch.epoch + 1}, step {batch.step + 1}" if batch is not None else ""
            raise LearnerError(self.name, f"{phase}{place}: {explain(error)}", traceback.format_exc()) from error
        self._meters.work(time.perf_counter() - started)
        return given


def explain(error: BaseException) -> str:
    """Return one line on an error, with a remedy where the kind of error tells one."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return f"out of memory ({text}); raise method.num_segments or lower data.batch_size"
    if "InvalidCxxCompiler" in text or "No working C++ compiler" in str(error):
        return "torch.compile found no C++ compiler; install one, or set numerics.compile=false"
    return text

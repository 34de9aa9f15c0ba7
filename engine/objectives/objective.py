"""Training objectives: weighted terms that become one number to minimise."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import RecipeError


@dataclass(frozen=True)
class MixedLabels:
    """What mixed images show besides ``Context.labels``.

    Attributes:
        second: int64 ``[B]``, the class of each second image; -1 where it has no label.
        share: float32 ``[B]``, lambda: how much of each image is the first one, 0 to 1.
    """

    second: Tensor
    share: Tensor


@dataclass(frozen=True)
class Context:
    """What a term may look at besides the features of its learner.

    Attributes:
        labels: ``[B, ...]`` as the task has them; of classification int64 ``[B]``, -1 where an image has no label.
        pixels: float32 ``[B, C, H, W]`` in [0, 1], the augmented image before normalisation; None where no term
            needs it.
        messages: tensors that other learners gave, by message name; without a graph. One that this step does not
            bring is missing.
        predictions: what the learner itself predicts, such as class logits ``[B, classes]``, with their graph; the
            objective computes them once for all of its terms unless they are given.
        hooked: outputs of blocks inside the body with their graph, by block name; those that terms ask for.
        mixed: what the images were mixed with; None where they were not.
        epoch: e = 0, 1, ...
        step: of the epoch, 0, 1, ...
    """

    labels: Tensor
    pixels: Tensor | None = None
    messages: Mapping[str, Tensor] = field(default_factory=dict)
    predictions: Tensor | None = None
    hooked: Mapping[str, Tensor] = field(default_factory=dict)
    mixed: MixedLabels | None = None
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class TermValue:
    """What one term computed for one batch.

    Attributes:
        loss: float32 scalar, unweighted, with its graph.
        observed: float scalars without graph that are worth a record besides, by the name of the record.
    """

    loss: Tensor
    observed: Mapping[str, Tensor] = field(default_factory=dict)


class Term(nn.Module, ABC):
    """One loss together with the auxiliary network that it needs.

    The auxiliary network may run under autocast; the loss itself is always computed in float32.
    Parameters are drawn from torch's default generator, so build terms inside ``engine.streams.seeded``.

    Attributes:
        name: of its value in the records.
        needs_pixels: whether it reads ``Context.pixels``.
        needs_labels: whether its loss is a mean over the labelled images only, and 0 where there are none.
        hooks: names of the blocks whose outputs it reads from ``Context.hooked``.
    """

    name: str
    needs_pixels: bool = False
    needs_labels: bool = False
    hooks: tuple[str, ...] = ()

    def predict(self, features: Tensor) -> Tensor | None:
        """Return class logits ``[B, classes]`` of these features with their graph; None if it does not classify."""
        return None

    @abstractmethod
    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss of these features ``[B, ...]``, averaged over the batch."""


@dataclass(frozen=True)
class ObjectiveValue:
    """What an objective computed for one batch.

    Attributes:
        total: float32 scalar with its graph: the weighted sum of the losses.
        losses: float32 scalar per term, unweighted and without graph, for the records.
        logits: ``[B, classes]`` without graph, of the first term that classifies, or None where none does.
        observed: what the terms observed besides, by the name of the record.
    """

    total: Tensor
    losses: dict[str, Tensor]
    logits: Tensor | None
    observed: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """A weighted sum of terms, added in the alphabetical order of their names.

    A term of weight 0 is dropped: it is never computed, and its parameters do not exist, so no weight decay acts on
    them either. Callers need not build such a term at all.

    Raises:
        RecipeError: no term has a weight above 0, so nothing would be learned.
    """

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = {name: float(weights[name]) for name in sorted(weights) if weights[name] != 0}
        if not self.weights:
            listed = ", ".join(f"{name}={weight}" for name, weight in weights.items()) or "none"
            raise RecipeError(
                f"an objective has no term with a weight above 0 (found: {listed}), so its learner would learn "
                "nothing: give at least one of its terms a positive weight in the recipe's method"
            )
        assert all(weight > 0 for weight in self.weights.values()), f"negative or NaN weight in {dict(weights)}"
        assert set(self.weights) <= set(terms) <= set(weights), f"terms {set(terms)} do not match {dict(weights)}"
        self.terms = nn.ModuleDict({name: terms[name] for name in self.weights})

    def plus(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> Objective:
        """Return an objective with further terms; those of weight 0 are dropped."""
        own = dict(zip(self.terms, self._each(), strict=True))
        return Objective({**own, **terms}, {**self.weights, **weights})

    @property
    def needs_pixels(self) -> bool:
        """Whether ``Context.pixels`` must be given."""
        return any(term.needs_pixels for term in self.terms.values())

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the blocks whose outputs must be in ``Context.hooked``."""
        return tuple(dict.fromkeys(block for term in self._each() for block in term.hooks))

    @property
    def need_labels(self) -> frozenset[str]:
        """Names of the terms whose loss is a mean over labelled images only."""
        return frozenset(name for name, term in self.terms.items() if term.needs_labels)

    def _each(self) -> list[Term]:
        return cast(list[Term], list(self.terms.values()))

    def predict(self, features: Tensor) -> Tensor | None:
        """Return the class logits ``[B, classes]`` of the first term that classifies, with their graph, or None."""
        return next((found for term in self._each() if (found := term.predict(features)) is not None), None)

    def forward(self, features: Tensor, context: Context, factors: Mapping[str, float] | None = None) -> ObjectiveValue:
        """Return total and losses of these features ``[B, ...]``.

        Args:
            features: what the body gave.
            context: what the terms may look at besides.
            factors: multiply the terms' weights; terms that are not named are left out. All count once unless given.
        """
        if context.predictions is None:
            context = replace(context, predictions=self.predict(features))
        weights = self.weights
        if factors is not None:
            weights = {name: weight * factors[name] for name, weight in weights.items() if factors.get(name)}
        values = {name: self.terms[name](features, context) for name in weights}
        total = torch.stack([weights[name] * value.loss for name, value in values.items()]).sum()
        logits = context.predictions.detach() if context.predictions is not None else None
        losses = {name: value.loss.detach() for name, value in values.items()}
        observed = {name: seen for value in values.values() for name, seen in value.observed.items()}
        return ObjectiveValue(total, losses, logits, observed)


def full_precision(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a block in which autocast is off on this tensor's device; inputs must be cast to float32 inside.

    Exponentials, logarithms and squared differences lose the small losses of late training in half precision.
    """
    # Devices without autocast exist: the planner sizes objectives on the meta device.
    if not torch.amp.is_autocast_available(tensor.device.type):
        return contextlib.nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)

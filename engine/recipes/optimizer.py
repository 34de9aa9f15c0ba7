"""Settings of the optimizer, and of the learning rate's schedule over the run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from engine.recipes.settings import left_out_unless_given, settings

# One way to say none: a recipe that says 0 is the same as one that says nothing.
WarmupEpochs = Annotated[Annotated[int, Field(ge=0)] | None, AfterValidator(lambda epochs: epochs or None)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]


@settings
class OptimizerSettings:
    """What all optimizers may do besides."""

    clip_norm: Positive | None = None
    """Largest L2 norm of a learner's gradients, all of its parameters together; larger ones are scaled down to it."""
    undecayed: Literal["norms_and_biases"] | None = None
    """Which parameters have no weight decay: none unless given, or `norms_and_biases`, all of a single axis."""

    _serialize = left_out_unless_given("clip_norm", "undecayed")


@settings
class SGD(OptimizerSettings):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.1
    """Learning rate of every learner before the schedule."""
    momentum: Momentum = 0.9
    """Share of the previous update that is kept."""
    nesterov: bool = True
    """Look ahead along the momentum."""
    weight_decay: NotNegative = 1e-4
    """L2 penalty, added to the gradient of every parameter, batch norm and auxiliary networks included, but for what
    `undecayed` says."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0; set momentum=0.9 or nesterov=false")
        return self


@settings
class Adam(OptimizerSettings):
    """Adam (Kingma and Ba 2015), weight decay added to the gradient."""

    kind: Literal["adam"] = "adam"
    learning_rate: Positive = 1e-3
    """Learning rate of every learner before the schedule."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    epsilon: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NotNegative = 0.0
    """L2 penalty, added to the gradient."""


@settings
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: NotNegative = 0.01
    """Decay taken from the weights directly, times the learning rate."""


@settings
class RMSProp(OptimizerSettings):
    """RMSProp (Tieleman and Hinton 2012)."""

    kind: Literal["rmsprop"] = "rmsprop"
    learning_rate: Positive = 1e-2
    """Learning rate of every learner before the schedule."""
    alpha: Momentum = 0.99
    """Decay of the running mean of the squared gradient."""
    momentum: Momentum = 0.0
    """Share of the previous update that is kept."""
    epsilon: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NotNegative = 0.0
    """L2 penalty, added to the gradient."""


Optimizer = Annotated[SGD | Adam | AdamW | RMSProp, Field(discriminator="kind")]


@settings
class Constant:
    """The learning rate does not change."""

    kind: Literal["constant"] = "constant"


@settings
class Cosine:
    """Half a cosine wave from the learning rate to zero: base(t) = 0.5 * lr * (1 + cos(pi * t / T))."""

    kind: Literal["cosine"] = "cosine"
    interval: Literal["epoch", "step"] = "epoch"
    """Whether t counts epochs or optimizer steps. A run of a single epoch counts steps if that epoch would otherwise
    run at 0, at which nothing is learned."""
    counts_from: Literal[0, 1] = 1
    """Number of the first epoch: 1 makes the last epoch run at exactly 0 (InfoPro on CIFAR), 0 starts at lr. By step,
    the rate starts at lr in any case."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs e = 1..W that run at base(e) * (e - 1) / W + warmup_learning_rate * (W + 1 - e) / W (InfoPro: 10)."""
    warmup_learning_rate: NotNegative = 0.01
    """Learning rate of the first warm-up epoch, at most the optimizer's."""

    @model_validator(mode="after")
    def _only_epochs_are_counted_from(self) -> Cosine:
        if self.interval == "step" and self.counts_from != 1:
            raise ValueError(
                f"counts_from={self.counts_from} numbers epochs, but with interval=step the rate starts at "
                "learning_rate and falls from step to step: set counts_from=1, or interval=epoch"
            )
        return self

    def counts_steps(self, epochs: int) -> bool:
        """Return whether t counts optimizer steps in a run of so many epochs."""
        return self.interval == "step" or (epochs == 1 and self.counts_from == 1 and self.warmup_epochs == 0)


@settings
class Step:
    """The learning rate is multiplied by `factor` at each milestone."""

    kind: Literal["step"] = "step"
    milestones: tuple[Annotated[int, Field(ge=1)], ...]
    """Finished epochs after which the rate changes, for instance (80, 120)."""
    factor: Positive = 0.1
    """What the rate is multiplied by."""
    warmup_epochs: WarmupEpochs = None
    """Epochs e = 1..W that run at e / W of the rate (Luo et al. 2019, with W = 10); none unless given."""

    _serialize = left_out_unless_given("warmup_epochs")

    @model_validator(mode="after")
    def _milestones_increase(self) -> Step:
        if list(self.milestones) != sorted(set(self.milestones)):
            increasing = ",".join(map(str, sorted(set(self.milestones))))
            raise ValueError(f"milestones must increase, found {list(self.milestones)}; set milestones={increasing}")
        return self


@settings
class Polynomial:
    """From the learning rate to `minimum`: (lr - minimum) * (1 - t / T) ** power + minimum, t in steps."""

    kind: Literal["polynomial"] = "polynomial"
    power: Positive = 0.9
    """Exponent."""
    minimum: NotNegative = 0.0
    """Learning rate at the end, at most the optimizer's."""


@settings
class Exponential:
    """The learning rate is multiplied by `factor` after every epoch."""

    kind: Literal["exponential"] = "exponential"
    factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.97
    """What the rate is multiplied by."""


Schedule = Annotated[Constant | Cosine | Step | Polynomial | Exponential, Field(discriminator="kind")]


def check_rates(schedule: Schedule, learning_rate: float, field: str) -> None:
    """Check that a schedule never leads above the learning rate that it starts from.

    Args:
        schedule: how the rate changes.
        learning_rate: of an optimizer.
        field: where the recipe holds it.

    Raises:
        ValueError: the warm-up would begin above the rate, or the rate would rise to its minimum.
    """
    if isinstance(schedule, Cosine) and schedule.warmup_epochs and schedule.warmup_learning_rate > learning_rate:
        name, given, does = "warmup_learning_rate", schedule.warmup_learning_rate, "the warm-up would fall to it"
    elif isinstance(schedule, Polynomial) and schedule.minimum > learning_rate:
        name, given, does = "minimum", schedule.minimum, "the rate would rise from it"
    else:
        return
    raise ValueError(
        f"{field}: found {learning_rate}, expected at least schedule.{name}={given}: {does}; set "
        f"schedule.{name}={learning_rate / 10:g}, or a larger {field}"
    )

"""Settings of the methods that regularise one network, or teach it by its own past, which MKF is compared with."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.recipes.method_settings import MethodSettings, PairedImages
from engine.recipes.methods.sub_networks import MixingStyle
from engine.recipes.settings import Positive, Share, Weight, settings

# In runs: the released code's is 1.2 runs long.
_LONGEST_HORIZON = 2


@settings
class LabelSmoothing(MethodSettings):
    """Label smoothing (Szegedy et al. 2016): the target is (1 - epsilon) y + epsilon / classes."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["label_smoothing"] = "label_smoothing"
    smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share epsilon of the target that is spread over all classes."""


@settings
class DataMix(MethodSettings):
    """Mixup (Zhang et al. 2018), CutMix (Yun et al. 2019) or both in turn, and nothing else."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["data_mix"] = "data_mix"
    style: MixingStyle = "mixup"
    """Blend two images, paste an area of one into the other, or either with equal chance."""
    mixing_probability: Share = 1.0
    """Chance that the images of a step are mixed (CutMix on CIFAR: 0.5)."""
    mixup_alpha: Positive = 1.0
    """Both parameters of the Beta distribution of Mixup's lambda (0.2 on ImageNet)."""
    cutmix_alpha: Positive = 1.0
    """Both parameters of the Beta distribution of CutMix's lambda."""
    warmup_fraction: Share = 0.0
    """Share of the epochs, at the beginning, in which no images are mixed."""


@settings
class ONE(MethodSettings):
    """On-the-fly native ensemble (Lan et al. 2018): copies of the last stage teach the network as a gated ensemble."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["one"] = "one"
    num_branches: Annotated[int, Field(ge=2, le=16)] = 3
    """Branches, the network's own last stage among them; only that one is deployed."""
    weight: Weight = 1.0
    """Weight of learning from the ensemble."""
    temperature: Positive = 3.0
    """Softens ensemble and branches by T; the loss is multiplied by T * T."""
    ramp_epochs: Annotated[int, Field(ge=0)] = 80
    """Epochs E over which the weight rises as exp(-5 (1 - e / E)^2)."""

    def caution_of(self, epochs: int) -> str | None:
        """Return what a user should know of a training of so many epochs; None if there is nothing."""
        if not 1 < epochs < self.ramp_epochs:
            return None
        reached = math.exp(-5.0 * (1.0 - (epochs - 1) / self.ramp_epochs) ** 2)
        return (
            f"epochs={epochs} ends before method.ramp_epochs={self.ramp_epochs} does, and the network learns from its "
            f"ensemble with at most {reached:.2g} of method.weight; method.ramp_epochs={max(1, epochs // 3)} fits this "
            "run"
        )


@settings
class CSKD(MethodSettings):
    """Class-wise self-knowledge distillation (Yun et al. 2020): images of a class agree with one another."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["cs_kd"] = "cs_kd"
    weight: Weight = 1.0
    """Weight lambda of the agreement (3 on fine-grained sets)."""
    temperature: Positive = 4.0
    """Softens both predictions by T; the loss is multiplied by T * T."""

    @property
    def paired_images(self) -> PairedImages:
        """What a batch holds beside its images."""
        return "same_class"


@settings
class PSKD(MethodSettings):
    """Progressive self-knowledge distillation (Kim et al. 2021): the last epoch's predictions soften the labels."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["ps_kd"] = "ps_kd"
    last_share: Share = 0.8
    """Share alpha_T of the past predictions in the target of the last epoch; it grows linearly with the epochs."""


@settings
class LWR(MethodSettings):
    """Learning with retrospection (Deng and Zhang 2021): predictions of some epochs ago soften the labels."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["lwr"] = "lwr"
    interval: Annotated[int, Field(ge=1)] = 5
    """Epochs k from one retrospection to the next; the first k learn from the labels alone. The label's share falls in
    the last epoch of each interval."""
    temperature: Positive = 5.0
    """Softens past and present predictions by T; the loss is multiplied by T * T."""
    label_share: Share = 0.1
    """Share g of the label that stays in the end."""
    horizon: Annotated[int, Field(ge=1)] = 240
    """Epoch at which that share is reached (240 in the released code, although it trains 200)."""

    def caution_of(self, epochs: int) -> str | None:
        """Return what a user should know of a training of so many epochs; None if there is nothing."""
        if epochs == 1 or (self.interval < epochs and self.horizon <= _LONGEST_HORIZON * epochs):
            return None
        if epochs <= self.interval:
            so = f"before the first retrospection, after method.interval={self.interval} epochs: it is the baseline"
        else:
            so = f"long before method.horizon={self.horizon}, and learns from little but the labels"
        interval = min(self.interval, max(1, epochs // 5))
        return f"epochs={epochs} ends {so}; method.interval={interval} with method.horizon={epochs} fits this run"


@settings
class DLB(MethodSettings):
    """Self-distillation from the last mini-batch (Shen et al. 2022): agree with what was said one step ago."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["dlb"] = "dlb"
    weight: Weight = 1.0
    """Weight alpha of the agreement."""
    temperature: Positive = 3.0
    """Softens both predictions by T; the loss is multiplied by T * T."""

    @property
    def paired_images(self) -> PairedImages:
        """What a batch holds beside its images."""
        return "same_image"

"""Settings of the methods that train a network together with its sub-networks."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from engine.errors import RecipeError
from engine.paths import absolute
from engine.recipes.method_settings import MethodSettings, PairedImages
from engine.recipes.settings import PathText, Positive, Share, Weight, settings

Sampling = Literal["inherited", "ordered", "uniform", "independent"]
Fraction = Literal[
    "keep", "none", "linear", "linear_clipped", "linear_clipped_heavy", "shared", "shared_clipped", "exact"
]
MixingStyle = Literal["mixup", "cutmix", "compound"]


@settings
class StochasticDepth(MethodSettings):
    """Stochastic depth (Huang et al. 2016): every step trains with residual blocks left out at random."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["stochastic_depth"] = "stochastic_depth"

    last_survival: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Probability p_L that the last block stays; it falls linearly from 1. What stays is divided by its own p_l."""

    recalibration_images: Annotated[int, Field(ge=0)] = 0
    """Training images from which batch-norm statistics are measured anew before each evaluation; 0 for none."""

    @property
    def takes_further_terms(self) -> bool:
        """Whether a task may add to the label loss."""
        return True


@settings
class _SubNetworks(MethodSettings):
    """What the methods share that draw sub-networks, which learn from the class probabilities of larger ones."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    sampling: Sampling = "inherited"
    """How blocks are left out: `inherited`, the last ones of each stage, each sub-network inside the one before it;
    `ordered`, the same inside the full network; `uniform`, as many of the last ones as chance says; `independent`."""

    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Ratio rho of the chances to leave out d + 1 and d blocks of a stage, for `inherited` and `ordered`."""

    last_survival: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Probability that the last block stays, for `independent`; it falls linearly from 1."""

    recalibration_images: Annotated[int, Field(ge=0)] = 2000
    """Training images from which batch-norm statistics are measured anew before each evaluation; 0 for none."""


@settings
class ST(_SubNetworks):
    """Stimulative training (Ye et al. 2022): sub-networks learn from the full network in the same step."""

    kind: Literal["st"] = "st"

    sampling: Sampling = "uniform"
    """How blocks are left out: `uniform`, as many of the last ones of each stage as chance says (the paper); others as
    for group knowledge."""

    num_subnetworks: Annotated[int, Field(ge=1, le=64)] = 1
    """Sub-networks S in a step: 1 in the paper, 6 in ST++."""

    stage_choices: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """For `uniform`, in how many ways each stage may be shortened (ST++'s space 3 of ResNet-50 is 1,2,4,1)."""

    weight: Weight = 1.0
    """Weight c of the sub-networks' loss."""

    temperature: Positive = 1.0
    """Softens both distributions by T; the loss is multiplied by T * T."""


@settings
class GroupKnowledge(_SubNetworks):
    """What GKT and MKF share: sub-networks in groups by size, each of which learns from the knowledge of the larger."""

    num_groups: Annotated[int, Field(ge=1, le=64)] = 3
    """Groups T, the full network among them; step s trains one sub-network, of group s modulo T."""

    distillation_weight: Weight = 2.0
    """Weight beta of learning from the next larger group (0.5 on ImageNet)."""

    averaging_weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Weight alpha of a new prediction in the running mean of an image's knowledge."""

    temperature: Positive = 1.0
    """Softens knowledge and predictions by T; the loss is multiplied by T * T."""

    strict_child: bool = True
    """Draw again until a sub-network is smaller than its parent, where it can be."""

    every_group: bool = False
    """Train one sub-network of each group in every step, which takes T forward passes."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    """Keep only the largest probabilities of each image, so that the store is smaller; all unless given."""

    knowledge_folder: PathText | None = None
    """Folder on the learner's machine whose disk holds the store; in memory unless given."""

    store_learners: Annotated[int, Field(ge=0, le=64)] = 0
    """Learners that do nothing but hold the store, each the images of index i modulo how many there are; 0 lets the
    network's own learner hold it. The weights are the same."""

    def with_absolute_paths(self) -> GroupKnowledge:
        """Return the same with the folder of the store made absolute."""
        if self.knowledge_folder is None:
            return self
        folder = absolute(self.knowledge_folder, "method.knowledge_folder", RecipeError)
        return dataclasses.replace(self, knowledge_folder=str(folder))

    def without_folder(self) -> GroupKnowledge:
        """Return the same with its store in memory."""
        return dataclasses.replace(self, knowledge_folder=None)

    @model_validator(mode="after")
    def _store_is_asked_once(self) -> GroupKnowledge:
        if self.every_group and self.store_learners:
            raise ValueError(
                "store_learners are asked before a step, but with every_group a group learns from what the one before "
                "it says in the same step: set store_learners=0, or every_group=false"
            )
        return self


@settings
class GKT(GroupKnowledge):
    """Group knowledge based training (Tang et al. 2024): sub-networks learn from a running mean of larger ones."""

    kind: Literal["gkt"] = "gkt"


@settings
class MKF(GroupKnowledge):
    """Mixed knowledge fraction (Tang et al.): group knowledge that is also learned from mixed images."""

    kind: Literal["mkf"] = "mkf"

    fraction: Fraction = "shared_clipped"
    """How a prediction on a mixed image is split into knowledge of both images: `linear` is the paper's OPT2, `exact`
    its OPT1; `keep` and `none` do not split."""

    warmup_fraction: Share = 0.1
    """Share of the epochs, at the beginning, in which no images are mixed."""

    mixing_probability: Share = 0.5
    """Chance that the images of a step are mixed; then Mixup or CutMix with equal chance."""

    mixup_alpha: Positive = 1.0
    """Both parameters of the Beta distribution of Mixup's lambda."""

    cutmix_alpha: Positive = 1.0
    """Both parameters of the Beta distribution of CutMix's lambda."""

    mixing_partners: Literal["same_batch", "second_batch"] = "same_batch"
    """Mix images of one batch with one another, or with those of a second one (the paper)."""

    measure_fraction_every: Annotated[int, Field(ge=0)] = 0
    """Every so many mixed steps, compare every rule's split with what the network says of the unmixed images; 0 for
    never. The weights stay the same."""

    @property
    def paired_images(self) -> PairedImages:
        """What a batch holds beside its images."""
        return "second_batch" if self.mixing_partners == "second_batch" else "none"

    @property
    def caution(self) -> str | None:
        """What a user should know before this is trained; None if there is nothing."""
        if self.fraction != "linear":
            return None
        return (
            "method.fraction=linear has no bounds (the paper's OPT2 as printed): what it takes for knowledge may be "
            "far from any probabilities, and training may diverge; linear_clipped is the same rule with bounds"
        )

    @model_validator(mode="after")
    def _fields_agree(self) -> MKF:
        if self.every_group and self.measure_fraction_every:
            raise ValueError("measure_fraction_every measures the one sub-network of a step: set every_group=false")
        return self

"""Settings of end-to-end training and of the methods that train a chain of segments with local losses."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from engine.recipes.method_settings import MethodSettings, Obstacle
from engine.recipes.methods.branches import Branches, check_inside
from engine.recipes.problems import near_names
from engine.recipes.settings import Weight, left_out_unless_given, names, settings


@settings
class Ramp:
    """A weight that changes linearly over depth, from the first local loss to the last (segments 1 to K - 1)."""

    first: Weight
    """Weight in segment 1; the only one that acts when K = 2."""
    last: Weight
    """Weight in segment K - 1."""

    def at(self, segment: int, num_segments: int) -> float:
        """Return the weight of segment j = 0..K-2: first * (1 - j / (K - 2)) + last * j / (K - 2)."""
        if num_segments <= 2:
            return self.first
        ratio = segment / (num_segments - 2)
        return self.first * (1 - ratio) + self.last * ratio


def _ramp(value: Any) -> Any:
    if isinstance(value, str) and "," in value:
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return {"first": value, "last": value}
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return {"first": value[0], "last": value[1]}
    return value


CutRule = Literal["published", "published_memory", "balanced_layers", "balanced_memory", "balanced_time", "measured"]


def _cuts(value: Any) -> Any:
    if value == "balanced":
        raise ValueError(
            "say what shall be balanced: balanced_layers (equal counts of blocks), balanced_memory, balanced_time, or "
            "measured (times of this machine)"
        )
    is_rule = isinstance(value, str) and near_names(value, get_args(CutRule), likeness=0.75)
    return value if is_rule else names(value)


DepthRamp = Annotated[Ramp, BeforeValidator(_ramp)]
Cuts = Annotated[CutRule | tuple[str, ...], BeforeValidator(_cuts)]
Head = Literal["softmax", "contrastive"]
# One way to say all: a recipe that says 1 is the same as one that says nothing.
ReconstructionShare = Annotated[
    Annotated[float, Field(gt=0.0, le=1.0)] | None, AfterValidator(lambda share: None if share == 1 else share)
]


@settings
class EndToEnd(MethodSettings):
    """Ordinary back-propagation through the whole network: the method that the others are compared with."""

    is_separable: ClassVar[bool] = True

    kind: Literal["end_to_end"] = "end_to_end"

    @property
    def takes_further_terms(self) -> bool:
        """Whether a task may add to the label loss."""
        return True


@settings
class Segmented(MethodSettings):
    """What all methods share that cut the network into K segments."""

    num_segments: Annotated[int, Field(ge=1)] = 2
    """Number of segments K, from 1 (end-to-end) to the number of blocks of the backbone."""

    cuts: Cuts = "balanced_layers"
    """`published` or `published_memory` (the papers' tables), `balanced_layers` (equal counts of blocks),
    `balanced_memory` or `balanced_time` (the largest segment is as small as possible, heads and decoders included),
    `measured` (as `balanced_time`, but timed on this machine when a training starts, which puts names in its place), or
    the names of the blocks after which to cut, such as layer1_2,layer2_1, or 0,1 where blocks have no names."""

    branches: Branches | None = None
    """Side branches inside the segments, such as {kind: dhm}; those of DSL and DHM mimic the segment's own head."""

    @property
    def takes_further_terms(self) -> bool:
        """Whether a task may add to the label loss."""
        return True

    @property
    def head(self) -> Head:
        """What the local heads are trained for."""
        return "softmax"

    def obstacle_to_replicas(self, field: str = "method") -> Obstacle | None:
        """Return why several replicas cannot train each learner on a part of the batch; None if they can."""
        obstacle = super().obstacle_to_replicas(field)
        if obstacle is not None:
            return obstacle
        if self.head != "softmax":
            return Obstacle("the contrastive loss compares all images of a batch", f"{field}.head=softmax")
        if self.branches is not None:
            return Obstacle("branches draw random numbers for the whole batch", f"{field}.branches=null")
        return None

    @model_validator(mode="after")
    def _branches_stay_inside(self) -> Segmented:
        check_inside(self.branches, "branches")
        return self


@settings
class Greedy(Segmented):
    """Greedy supervised learning: a pooled linear head and its loss on every segment."""

    is_separable: ClassVar[bool] = True

    kind: Literal["greedy"] = "greedy"
    head: Head = "softmax"
    """Cross-entropy on classes, or the supervised contrastive loss on 128 outputs."""


@settings
class DGL(Segmented):
    """Decoupled greedy learning (Belilovsky et al. 2020): greedy with the `mlp-sr` auxiliary network."""

    is_separable: ClassVar[bool] = True

    kind: Literal["dgl"] = "dgl"


@settings
class PredSim(Segmented):
    """Local prediction and similarity-matching losses (Nokland and Eidnes 2019)."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    kind: Literal["predsim"] = "predsim"
    similarity_weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.99
    """Share b of the similarity loss; the prediction loss has 1 - b."""
    prediction_features: Annotated[int, Field(ge=1)] = 512
    """Features are pooled until at most this many enter the linear layer (512 for CIFAR ResNets, AugLocal's port)."""


@settings
class InfoPro(Segmented):
    """Information propagation (Wang et al. 2021): reconstruct the image and predict the class in every segment."""

    is_separable: ClassVar[bool] = True

    kind: Literal["infopro"] = "infopro"
    head: Head = "softmax"
    """Estimator of I(h; y): cross-entropy of an auxiliary classifier, or the supervised contrastive loss."""
    reconstruction_weight: DepthRamp = Ramp(first=1.0, last=1.0)
    """Weight lambda_1 of the reconstruction loss, the estimator of I(h; x): one number, or first,last."""
    classification_weight: DepthRamp = Ramp(first=1.0, last=1.0)
    """Weight lambda_2 of the head's loss: one number, or first,last."""
    reconstruction_share: ReconstructionShare = None
    """Share of the images of a batch that are reconstructed, drawn anew for each batch; all, as in the paper, unless
    given."""

    _serialize = left_out_unless_given("reconstruction_share")

    def obstacle_to_replicas(self, field: str = "method") -> Obstacle | None:
        """Return why several replicas cannot train each learner on a part of the batch; None if they can."""
        obstacle = super().obstacle_to_replicas(field)
        if obstacle is None and self.reconstruction_share is not None:
            why = "the images that are reconstructed are drawn from the whole batch"
            return Obstacle(why, f"{field}.reconstruction_share=1")
        return obstacle

"""Settings of tasks: what is predicted for an image, and how it is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from engine.recipes.backbone import Option, Options
from engine.recipes.data import LabelKind
from engine.recipes.own_files import OWN_PATTERN, is_own, with_absolute_path
from engine.recipes.settings import Weight, left_out_unless_given, settings

_OWN = "path/to/file.py:Name"
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
# One way to say none: a recipe that says 0 is the same as one that says nothing.
FractionOrNone = Annotated[Fraction | None, AfterValidator(lambda fraction: fraction or None)]
EvaluationScale = Annotated[float, Field(ge=0.1, le=4.0)]
PixelMean = Literal["labelled", "all"]
"""What a sum over pixels is divided by: the number of pixels with a class, or of all pixels."""


@settings
class TaskSettings:
    """What a recipe says of its task, and what others ask of it; each answer here is true of most tasks."""

    takes_labels: ClassVar[tuple[LabelKind, ...]]
    """The kinds of labels that its data may have."""

    needs_matches: ClassVar[bool] = False
    """Whether it is scored by which other pictures of its class an image finds, so that there has to be one."""

    evaluation_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that only an evaluation reads: scores follow from them, weights do not."""

    @property
    def kind(self) -> str:
        """The word for it in a recipe; each task has a field of this name."""
        raise NotImplementedError

    @property
    def learned_as(self) -> str:
        """The ``kind`` of the task whose losses and methods it takes: its own."""
        return self.kind

    @property
    def further_fields(self) -> dict[str, float]:
        """The fields that ask for more than the label loss, with their values."""
        return {}

    @property
    def own_options(self) -> Mapping[str, Option]:
        """What a class of one's own may read, by names whose meaning only its file knows."""
        return {}

    def with_absolute_paths(self) -> Self:
        """Return the same with the paths that it names made absolute.

        Raises:
            RecipeError: a path means nothing on this machine.
        """
        return self


@settings
class Classification(TaskSettings):
    """Predict one of C classes; scored by accuracy."""

    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("classes",)

    kind: Literal["classification"] = "classification"

    label_smoothing: FractionOrNone = None
    """Epsilon of label smoothing: the network's own classifier learns from (1 - epsilon) y + epsilon / classes (Szegedy
    et al. 2016, section 7); none unless given. Local heads, branches and the classifiers that a backbone brings along
    keep their labels. Training records the loss with it, evaluations the one without."""

    _serialize = left_out_unless_given("label_smoothing")

    @property
    def further_fields(self) -> dict[str, float]:
        """The field that asks for more than the label loss, with its value."""
        return {} if self.label_smoothing is None else {"label_smoothing": self.label_smoothing}


@settings
class Segmentation(TaskSettings):
    """Predict the class of each pixel; scored by the mean of intersection over union (mIoU)."""

    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("label_maps",)
    evaluation_fields: ClassVar[tuple[str, ...]] = ("evaluation_flip", "evaluation_scales")

    kind: Literal["segmentation"] = "segmentation"

    final_mean: PixelMean = "labelled"
    """What the cross-entropy of the network's own output is divided by, and that of an auxiliary classifier of the
    backbone: the number of labelled pixels, or, as in InfoPro's code, of `all`."""

    local_mean: PixelMean = "labelled"
    """The same of the local heads; `labelled` in InfoPro's code, too."""

    evaluation_scales: Annotated[tuple[EvaluationScale, ...], Field(min_length=1, max_length=16)] = (1.0,)
    """Each image is evaluated once for each of these, resized by it; the probabilities are averaged. Has no influence
    on the weights, but on the scores, so that a training with others is another run."""

    evaluation_flip: bool = False
    """Evaluate each image mirrored, too, and average the probabilities. Has no influence on the weights, but on
    the scores, so that a training with it is another run."""

    @model_validator(mode="after")
    def _scales_differ(self) -> Segmentation:
        if len(set(self.evaluation_scales)) < len(self.evaluation_scales):
            different = ",".join(map(str, dict.fromkeys(self.evaluation_scales)))
            raise ValueError(
                f"evaluation_scales must differ from one another, found {list(self.evaluation_scales)}; set "
                f"evaluation_scales={different}"
            )
        return self


@settings
class Retrieval(TaskSettings):
    """Find other pictures of an identity; learned as classification, scored by mean average precision."""

    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("classes", "identities")
    needs_matches: ClassVar[bool] = True

    kind: Literal["retrieval"] = "retrieval"

    label_smoothing: Fraction = 0.0
    """Epsilon of label smoothing of the network's own classifier; local heads and branches keep their labels."""

    triplet_weight: Weight = 0.0
    """Weight of the batch-hard triplet loss on the features that enter the classifier; see `data.classes_per_batch`."""

    triplet_margin: Annotated[float, Field(ge=0.0)] = 0.3
    """How much nearer the farthest image of the same identity shall be than the nearest of another."""

    @property
    def learned_as(self) -> str:
        """That of classification."""
        return "classification"

    @property
    def further_fields(self) -> dict[str, float]:
        """The fields that ask for more than the label loss of classification, with their values."""
        given = {"label_smoothing": self.label_smoothing, "triplet_weight": self.triplet_weight}
        return {name: value for name, value in given.items() if value}


@settings
class OwnTask(TaskSettings):
    """A task of your own: a subclass of `engine.tasks.Task` in a file of yours."""

    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("classes", "identities", "label_maps")

    kind: Annotated[str, Field(pattern=OWN_PATTERN)] = _OWN
    """The file and the name of the class, ``path/to/file.py:Name``."""

    options: Options = Field(default_factory=dict)
    """What the class may read as ``settings.options``."""

    @property
    def own_options(self) -> Mapping[str, Option]:
        """Those of the recipe."""
        return self.options

    def with_absolute_paths(self) -> OwnTask:
        """Return the same with the path of the file made absolute; as `TaskSettings.with_absolute_paths`."""
        return dataclasses.replace(self, kind=with_absolute_path(self.kind, "task.kind"))


def _tag(value: Any) -> str:
    kind = value.get("kind", "classification") if isinstance(value, dict) else getattr(value, "kind", "")
    return _OWN if isinstance(kind, str) and is_own(kind) else str(kind)


Task = Annotated[
    Annotated[Classification, Tag("classification")]
    | Annotated[Segmentation, Tag("segmentation")]
    | Annotated[Retrieval, Tag("retrieval")]
    | Annotated[OwnTask, Tag(_OWN)],
    Discriminator(_tag),
]
"""What is predicted; classification unless given."""

"""The protocol of a task: what comes with an image, what a network gives for it, how that is learned and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from engine.backbones.safetensors_files import OUTPUT_OF_EXTRACTOR
from engine.data import NO_LABEL, Augmenter, Batch, Facts, on_device
from engine.errors import RecipeError
from engine.objectives import MixedLabels, Term, decoder_for, dgl_head, head_for, linear_head
from engine.recipes import TaskSettings
from engine.tasks.metric import Metric

HeadStyle = Literal["linear", "infopro", "dgl"]
"""Which auxiliary network of the papers stands behind a segment; see `engine.objectives.heads`."""

Scored = Literal["output", "features"]
"""What is scored: what a network gives, or the features [B, D] that enter its last linear layer."""


class Score(Protocol):
    """What is counted over the batches of one split, whatever their sizes.

    Attributes:
        images: number of images so far.
    """

    images: int

    def update(self, outputs: Tensor, labels: Tensor, /) -> None:
        """Add what is scored of a network for one batch, floating ``[B, ...]``, and the labels, as the task has them.

        Labels are those of the whole images: of label maps the shape may differ from that of the outputs.
        """

    def result(self) -> dict[str, float]:
        """Return the metrics over all images so far, by name; the headline's and ``images`` are among them."""


class CommonScore(Protocol):
    """As `Score`, of all networks of a cohort together.

    Attributes:
        images: number of images so far.
    """

    images: int

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor, /) -> None:
        """Add what each network gave for one batch, by its message; NaN of a network that has left the cohort."""

    def result(self) -> dict[str, float]:
        """Return the metrics over all images so far, by name."""


class Task(ABC):
    """What is predicted, for the images of one data set.

    Everything that differs from one task to another is asked here. What has a default is that of a task that gives a
    vector for an image, whose label is one integer. Shapes are without the batch axis.

    Args:
        settings: the recipe's ``task``.
        facts: what is known of the data.

    Attributes:
        headline: the metric by which evaluations are compared.
        label_dtype: of ``Batch.labels``, a name such as ``int64``.
        no_label: the value in them that means that there is no label.
        evaluation_splits: those that are scored, each by a score of its own; a task that compares two sets, such as
            query and gallery, marks them in the labels of one split.
        scored: what the scores take: a network's output, or the features [B, D] that enter its last linear layer.
        distribution_axis: the axis of what peers exchange, counted with that of the batch, along which it is the logits
            of a distribution; None where it is none, so that predictions cannot be exchanged.
    """

    headline: ClassVar[Metric]
    label_dtype: ClassVar[str] = "int64"
    no_label: ClassVar[int] = NO_LABEL
    evaluation_splits: ClassVar[tuple[str, ...]] = ("validation", "test")
    scored: ClassVar[Scored] = "output"
    distribution_axis: ClassVar[int | None] = None

    def __init__(self, settings: TaskSettings, facts: Facts) -> None:
        self.settings = settings
        self.facts = facts

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of values, or of channels, that a network's last block gives."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes, where each image has exactly one and its label is that; None for other labels."""
        return None

    def label_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the shape of what comes with an image ``(C, H, W)``: ``()`` for a number, ``(H, W)`` for a map."""
        return ()

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the shape of what the network gives for an image ``(C, H, W)``."""
        return (self.outputs,)

    def prediction_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the shape of what peers exchange: what the term of a network's output predicts."""
        return self.output_shape(image_shape)

    def output_shape_of(self, features: tuple[int, ...], image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return `output_shape` where it depends on the shape of the features that a block gives in its place."""
        return self.output_shape(image_shape)

    def prediction_shape_of(self, features: tuple[int, ...], image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return `prediction_shape` where it depends on the shape of the features behind a segment."""
        return self.prediction_shape(image_shape)

    @property
    def takes_any_size(self) -> bool:
        """Whether networks take whole images of any size, not only of that of training: where labels are maps."""
        return bool(self.label_shape(self.facts.image_shape))

    def output_in_words(self) -> str:
        """Return what a deployed network gives for B images, in words: what it means, dtype and shape."""
        if self.scored == "features":
            return f"{OUTPUT_OF_EXTRACTOR}; compare them after division by their Euclidean length"
        if self.num_classes is not None:
            return "logits, float32 [B, num_classes]"
        _, height, width = self.facts.image_shape
        images = f" for images of {height} x {width}" if self.takes_any_size else ""
        return f"float32 [B, {', '.join(map(str, self.output_shape(self.facts.image_shape)))}]{images}"

    @abstractmethod
    def final_term(self) -> Term:
        """Return the loss on the network's own output ``[B, *output_shape]``; draws weights, if it has any."""

    def further_terms(self) -> dict[str, tuple[Term, float]]:
        """Return what the whole network learns from besides, by name, each with its weight above 0.

        Methods whose settings say ``takes_further_terms`` add them to the loss on the network's output; with others the
        settings of a task that has some are refused, by what ``settings.further_fields`` names.
        """
        return {}

    @abstractmethod
    def local_term(self, head: nn.Module) -> Term:
        """Return the loss of a local head, which maps features to what ``local_head`` gives."""

    def hooked_term(self, block: str, head: nn.Module) -> Term:
        """Return the loss of a classifier that a backbone brings along, on the output of a block inside the body.

        Raises:
            RecipeError: the task has none.
        """
        raise RecipeError(
            f"backbone.auxiliary_heads=true: task.kind={self.settings.kind} has no loss for the classifiers that a "
            "backbone brings along: set backbone.auxiliary_heads=false"
        )

    def local_head(
        self,
        style: HeadStyle,
        feature_shape: tuple[int, ...],
        image_shape: tuple[int, int, int],
        final_channels: int,
    ) -> nn.Module:
        """Return a local head for features of a shape, with weights from torch's default generator.

        Args:
            style: which auxiliary network.
            feature_shape: of the features behind a segment, without the batch axis.
            image_shape: (C, H, W) of the images.
            final_channels: channels of the backbone's last features.

        Raises:
            RecipeError: there is no such head for such features.
        """
        styles: dict[HeadStyle, Callable[[], nn.Module]] = {
            "linear": lambda: linear_head(feature_shape, self.outputs),
            "dgl": lambda: dgl_head(feature_shape, self.outputs),
            "infopro": lambda: head_for(feature_shape, image_shape, self.outputs, final_channels),
        }
        return styles[style]()

    def decoder(self, feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> nn.Module:
        """Return what rebuilds images from the features behind a segment, with weights from torch's default generator.

        Args:
            feature_shape: without the batch axis.
            image_shape: (C, H, W) of the images.

        Raises:
            RecipeError: there is no decoder for such features.
        """
        return decoder_for(feature_shape, image_shape)

    def training_labels(self, batch: Batch, augmenter: Augmenter) -> Tensor:
        """Return the labels that fit the augmented images of a batch, ``[B, ...]`` on the CPU or the learner's device.

        Label maps must go where the pixels go: ``augmenter.moved_labels(batch, self.no_label)``.
        """
        return on_device(batch.labels, torch.device("cpu"))

    @property
    def evaluated_shape(self) -> tuple[int, int, int]:
        """Channels, largest height and largest width of what networks take in an evaluation."""
        return self.facts.evaluated_shape

    def evaluation_versions(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batches that are scored in the place of a batch of whole images: as many for each, in one order.

        Labels are those of the whole images in all of them.
        """
        yield batch

    def labelled(self, labels: Tensor) -> Tensor:
        """Return how many of the labels ``[B, ...]`` there are, a scalar on their device: the weight of means."""
        return (labels != self.no_label).sum()

    def hits(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """Return how many of the labels are predicted, a scalar on their device; None where nothing can be hit.

        The share of the labels is the running accuracy of training.
        """
        return None

    def mixed_hits(self, outputs: Tensor, labels: Tensor, mixed: MixedLabels) -> Tensor | None:
        """Return the same for mixed images, whose labels are those of the first: a label counts by its image's share.

        Only what classifies is trained on mixed images.
        """
        return self.hits(outputs, labels)

    def zero_labels(self, rows: int, device: torch.device) -> Tensor:
        """Return labels of zeros for so many training images, to find out what a step costs."""
        shape = self.label_shape(self.facts.image_shape)
        dtype: torch.dtype = getattr(torch, self.label_dtype)
        return torch.zeros(rows, *shape, dtype=dtype, device=device)

    @abstractmethod
    def score(self) -> Score:
        """Return an empty score, for one network and one split."""

    def kept(self, score: Score) -> tuple[Tensor, Tensor] | None:
        """Return the features ``[N, D]`` and labels ``[N]`` that a score keeps; None where it keeps none.

        Args:
            score: what `score` returned, after one batch or more.
        """
        return None

    def common_score(self) -> CommonScore | None:
        """Return an empty score of a cohort's networks together; None where they have none."""
        return None

"""Settings of tasks: what is predicted for an image, and how it is scored."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from engine.recipes.backbone import Option
from engine.recipes.own_classes import OWN_PATTERN, is_own, with_absolute_path
from engine.recipes.settings import Weight, settings

_OWN = "path/to/file.py:Name"
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
_LABELS = ("classes", "identities")


@settings
class Classification:
    """Predict one of C classes; scored by accuracy."""

    learned_as: ClassVar[str] = "classification"
    takes_labels: ClassVar[tuple[str, ...]] = ("classes",)

    further_fields: ClassVar[tuple[str, ...]] = ()

    kind: Literal["classification"] = "classification"

    def with_absolute_paths(self) -> Classification:
        """Return the same: there is no path in it."""
        return self


@settings
class Retrieval:
    """Find other pictures of an identity; learned as classification, scored by mean average precision."""

    learned_as: ClassVar[str] = "classification"
    takes_labels: ClassVar[tuple[str, ...]] = _LABELS

    kind: Literal["retrieval"] = "retrieval"

    label_smoothing: Fraction = 0.0
    """Epsilon of label smoothing of the network's own classifier; local heads and branches keep their labels."""

    triplet_weight: Weight = 0.0
    """Weight of the batch-hard triplet loss on the features that enter the classifier; see `data.classes_per_batch`."""

    triplet_margin: Annotated[float, Field(ge=0.0)] = 0.3
    """How much nearer the farthest image of the same identity shall be than the nearest of another."""

    @property
    def further_fields(self) -> tuple[str, ...]:
        """The fields that ask for more than the label loss of classification."""
        return tuple(name for name in ("label_smoothing", "triplet_weight") if getattr(self, name))

    def with_absolute_paths(self) -> Retrieval:
        """Return the same: there is no path in it."""
        return self


@settings
class OwnTask:
    """A task of your own: a subclass of `engine.tasks.Task` in a file of yours."""

    takes_labels: ClassVar[tuple[str, ...]] = _LABELS
    further_fields: ClassVar[tuple[str, ...]] = ()

    kind: Annotated[str, Field(pattern=OWN_PATTERN)] = _OWN
    """The file and the name of the class, ``path/to/file.py:Name``."""

    options: dict[str, Option] = Field(default_factory=dict)
    """What the class may read as ``settings.options``."""

    @property
    def learned_as(self) -> str:
        """Whose losses and methods it takes: its own."""
        return self.kind

    def with_absolute_paths(self) -> OwnTask:
        """Return the same with the path of the file made absolute.

        Raises:
            RecipeError: the path means nothing on this machine.
        """
        return dataclasses.replace(self, kind=with_absolute_path(self.kind, "task.kind"))


def _tag(value: Any) -> str:
    kind = value.get("kind", "classification") if isinstance(value, dict) else getattr(value, "kind", "")
    return _OWN if isinstance(kind, str) and is_own(kind) else str(kind)


Task = Annotated[
    Annotated[Classification, Tag("classification")]
    | Annotated[Retrieval, Tag("retrieval")]
    | Annotated[OwnTask, Tag(_OWN)],
    Discriminator(_tag),
]
"""What is predicted; classification unless given."""

"""Base class of the settings of methods: all that other rooms may ask a method."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engine.errors import RecipeError
from engine.recipes.backbone import Backbone
from engine.recipes.optimizer import Optimizer
from engine.recipes.own_files import digest_of_module
from engine.recipes.settings import settings

PairedImages = Literal["none", "same_class", "same_image", "second_batch"]
"""What is read beside each training image: nothing, a random image of its class (possibly itself), the same image once
more (augmented differently), or an image of a batch of another order of the same epoch."""


@dataclass(frozen=True)
class Obstacle:
    """What stands against something that a plan asks for.

    Attributes:
        reason: in words, to follow a "but".
        remedy: the assignment to a field that clears it away; None where no other settings do.
    """

    reason: str
    remedy: str | None = None


@settings
class MethodSettings:
    """What a recipe says of its method, and what others ask of it; each answer here is true of most methods.

    A method overrides what is different of it, by a property or, where its users choose, by a field of the same name.
    A method of one's own, ``method.kind=path/to/file.py:Name``, is a subclass under ``@settings``. Its file
    defines ``METHOD``, too, which makes learners and programs (`engine.methods.Method`).
    """

    takes_tasks: ClassVar[tuple[str, ...] | None] = None
    """The ``kind`` of each task that it can learn; None for all. What is inside a cohort's peers says its own."""

    is_separable: ClassVar[bool] = False
    """Whether what it learns of an image depends on no other image, neither of its batch nor of earlier ones, so that
    the parts of a batch can be trained on apart."""

    reads_weights: ClassVar[bool] = False
    """Whether its team holds weights out of a file, so that it cannot be planned without memory for them."""

    source_digest: ClassVar[str | None] = None
    """Of a class of one's own, the SHA-256 of its file when the class was made; None where there was no such file."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Note of what file a class is made, which may be another one when it trains."""
        super().__init_subclass__(**arguments)
        if not cls.__module__.startswith("engine."):
            cls.source_digest = digest_of_module(cls.__module__)

    @property
    def kind(self) -> str:
        """The word for it in a recipe: of a method of one's own, file and name.

        Raises:
            RecipeError: its class is in no file.
        """
        cls = type(self)
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if file is None or not file.endswith(".py") or "." in cls.__qualname__:
            raise RecipeError(
                f"method: the class {cls.__qualname__} can only be found again at the top level of a Python file: move "
                "it there, together with its METHOD"
            )
        return f"{file}:{cls.__qualname__}"

    @property
    def takes_further_terms(self) -> bool:
        """Whether the last segment learns from all that its task asks for, and not only from its label loss."""
        return False

    @property
    def goes_on_without_lost(self) -> bool:
        """Whether the other networks train on while one is away whose process or node was lost."""
        return False

    @property
    def paired_images(self) -> PairedImages:
        """What a batch holds beside its images."""
        return "none"

    @property
    def recalibration_images(self) -> int:
        """Training images from which batch-norm statistics are measured anew before each evaluation; 0 for none."""
        return 0

    @property
    def caution(self) -> str | None:
        """What a user should know before this is trained; None if there is nothing."""
        return None

    def caution_of(self, epochs: int) -> str | None:
        """Return what a user should know of a training of so many epochs; None if there is nothing."""
        return None

    @property
    def peer_optimizers(self) -> tuple[Optimizer | None, ...]:
        """The optimizers of a cohort's networks, None for the recipe's; empty without a cohort."""
        return ()

    @property
    def inside(self) -> MethodSettings:
        """How each network learns: of a cohort the method inside a peer, of all others the method itself."""
        return self

    @property
    def inside_field(self) -> str:
        """The field of the recipe that holds `inside`."""
        return "method"

    def with_inside(self, inside: MethodSettings) -> MethodSettings:
        """Return the same with another method inside."""
        return inside

    @property
    def num_segments(self) -> int:
        """Into how many segments each network is cut."""
        return 1

    @property
    def cuts(self) -> str | tuple[str, ...]:
        """The rule by which it is cut, or the blocks after which."""
        return "balanced_layers"

    @property
    def store_learners(self) -> int:
        """Learners that do nothing but hold what others remember of the images."""
        return 0

    @property
    def placement(self) -> Literal["PACK", "SPREAD"]:
        """Where learners are best off: near those that they hand features to, or each on a node of its own."""
        return "PACK"

    def networks(self, backbone: Backbone) -> tuple[Backbone, ...]:
        """Return the networks that are trained, if the recipe's is ``backbone``."""
        return (backbone,)

    def obstacle_to_replicas(self, field: str = "method") -> Obstacle | None:
        """Return why several replicas cannot train each learner on a part of the batch; None if they can.

        Args:
            field: of the recipe that holds these settings.
        """
        if self.is_separable:
            return None
        return Obstacle(
            f"{field}.kind={self.kind} compares or remembers images across batches, or has state of its own"
        )

    def with_absolute_paths(self) -> MethodSettings:
        """Return the same with the paths that it names made absolute.

        Raises:
            RecipeError: a path means nothing on this machine.
        """
        return self

    def without_folder(self) -> MethodSettings:
        """Return the same without a folder that it writes to: what it remembers stays in memory."""
        return self

    def without_weights(self) -> MethodSettings:
        """Return the same without files that its own networks start from; the recipe's backbone is not its own."""
        return self

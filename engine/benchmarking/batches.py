"""The batches on which all cases are measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data import Batch, Facts
from engine.errors import DataError, EngineError, NoFolderGiven
from engine.planning.known_images import known_facts
from engine.recipes import Data, Plan, Recipe
from engine.training.session import Session

# More would change nothing: what a step costs does not depend on what the images show.
_MOST_BATCHES = 4
_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Batches:
    """A few full training batches, over which all cases go again and again.

    Attributes:
        images: uint8 [n, B, C, H, W].
        labels: int64 [n, B], or uint8 [n, B, H, W] maps.
        indices: int64 [n, B].
        steps_per_epoch: of the recipe.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    steps_per_epoch: int

    @property
    def batch_size(self) -> int:
        """Images in each batch, B; with paired images, as many as a batch holds."""
        return int(self.labels.shape[1])

    def batch(self, number: int) -> Batch:
        """Return the batch of a training step, counted from 0; its epoch and step are those of the step."""
        which = number % len(self.images)
        epoch, step = divmod(number, self.steps_per_epoch)
        return Batch(self.images[which], self.labels[which], self.indices[which], "train", epoch, step)

    def write(self, path: Path) -> None:
        """Write a file that `read` opens."""
        np.savez(path, **dataclasses.asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> Batches:
        """Return the batches of a file."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "labels", "indices")}
            return cls(**arrays, steps_per_epoch=int(file["steps_per_epoch"]))


@dataclass(frozen=True)
class Images:
    """What all cases are measured on.

    Attributes:
        recipe: as given, but for epochs without end; with random images in place of those that are missing.
        facts: of the images.
        batches: some of them.
        described: in words, what they are.
    """

    recipe: Recipe
    facts: Facts
    batches: Batches
    described: str


def read_images(recipe: Recipe) -> Images:
    """Return a few batches of a recipe, of random images of the same shape if its own are not there.

    Raises:
        DataError: the images are missing, and nothing says what shape they have.
        RecipeError: fields that do not go together, or no ``data.root`` of images of which nothing says what shape they
            have.
    """
    # A schedule that came to its end in the middle of the measurement might have no learning rate for the next step.
    recipe = dataclasses.replace(recipe, epochs=max(recipe.epochs, _EPOCHS))
    described = f"the recipe's own batches ({recipe.data.name})"
    try:
        facts, batches = _read(recipe)
    except (DataError, NoFolderGiven) as error:
        instead = _random_instead(recipe)
        if instead is None:
            raise
        recipe, facts, batches = instead
        shape = " x ".join(map(str, facts.image_shape))
        described = f"random images of {shape}, because the recipe's own are not there ({str(error).splitlines()[0]})"
    return Images(recipe, facts, batches, described)


def _read(recipe: Recipe) -> tuple[Facts, Batches]:
    with Session(recipe, Plan()) as session:
        source = session.source
        # The last batch of an epoch may be smaller.
        full = min(_MOST_BATCHES, max(1, source.facts.sizes["train"] // recipe.data.batch_size))
        found = [source.batch(0, step) for step in range(full)]
        batches = Batches(
            np.stack([batch.images for batch in found]),
            np.stack([batch.labels for batch in found]),
            np.stack([batch.indices for batch in found]),
            source.steps_per_epoch(),
        )
        return source.facts, batches


def _random_instead(recipe: Recipe) -> tuple[Recipe, Facts, Batches] | None:
    """Return recipe, facts and batches of random images of the shape of those that are missing; None if none can be."""
    data = recipe.data
    if data.name in ("digits", "synthetic"):
        return None
    try:
        # Without the folder, which may hold a part of what it should.
        facts, _ = known_facts(dataclasses.replace(recipe, data=dataclasses.replace(data, root=None)))
    except EngineError:
        return None
    if facts.label_maps:
        return recipe, facts, _random_maps(data, facts)
    random = Data(
        name="synthetic",
        batch_size=data.batch_size,
        num_classes=facts.num_classes,
        image_size=facts.image_shape[1:],
        # A quarter as many are made for the test, where retrieval wants two of a class.
        synthetic_images=max(_MOST_BATCHES * data.batch_size, 4 * (facts.num_classes + 1)),
        mean=facts.mean,
        std=facts.std,
        augmentation=data.augmentation,
    )
    recipe = dataclasses.replace(recipe, data=random)
    return recipe, *_read(recipe)


def _random_maps(data: Data, facts: Facts) -> Batches:
    """Return random crops with a random class for each pixel."""
    drawn = np.random.default_rng(data.subset_seed)
    shape = (_MOST_BATCHES, data.batch_size)
    return Batches(
        drawn.integers(0, 256, (*shape, *facts.image_shape), dtype=np.uint8),
        drawn.integers(0, facts.num_classes, (*shape, *facts.image_shape[1:]), dtype=np.uint8),
        np.arange(_MOST_BATCHES * data.batch_size, dtype=np.int64).reshape(shape),
        -(-facts.sizes["train"] // data.batch_size),
    )

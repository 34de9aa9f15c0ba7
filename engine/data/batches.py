"""Batches as a function of (seed, epoch, step)."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.data.ahead import LookAhead, Place
from engine.data.appearances import notes_on_held_out
from engine.data.checking import check_pictures
from engine.data.class_batches import ClassBatches
from engine.data.datasets import STORED_LIMIT_BYTES, BeforeDecoding, Opened, open_images
from engine.data.facts import Facts
from engine.data.images import Images
from engine.data.inventory import Inventory
from engine.data.labels import choose_labelled, known_labels, refuse_for_label_maps, saying_what_removal_moves
from engine.data.mapped_images import MappedImages
from engine.data.normalisation import choose_statistics
from engine.data.paired_images import choose_paired_images, refuse_with_class_batches
from engine.data.remote.uris import without_secret
from engine.data.splits import Chosen, choose, epoch_order, num_steps
from engine.data.varied_sizes import of_one_size
from engine.errors import DataError, RecipeError
from engine.recipes import PairedImages
from engine.recipes.data import Data


@dataclass(frozen=True)
class Batch:
    """B images as bytes; numpy, so that an object store can share it without a copy.

    A training batch with paired images holds 2B: the first B rows are those of the batch without, the others are their
    paired images in the same order.
    """

    images: np.ndarray
    """uint8 [B, C, H, W]."""

    labels: np.ndarray
    """[B, ...] of the shape and dtype that the recipe's task has: int64 [B] classes, `engine.data.NO_LABEL` for a
    training image that is used without its label; or uint8 [B, H, W] maps."""

    indices: np.ndarray
    """int64 [B], position in the whole set of this split: an image's identity, whatever subset is used.

    Validation images that were held out of the training set keep their position in the training set."""

    split: str
    epoch: int
    step: int
    """Inside the epoch, from 0."""

    def read_only(self) -> Batch:
        """Return the same batch in the same memory, with arrays that cannot be written to, as an object store's are."""
        views = {"images": self.images.view(), "labels": self.labels.view(), "indices": self.indices.view()}
        for view in views.values():
            view.flags.writeable = False
        return replace(self, **views)


class Source:
    """One open data set, from which any batch can be read at any time.

    The last batch of an epoch holds what is left, possibly a single image; where each batch draws its classes, all are
    of one size.
    """

    def __init__(
        self,
        facts: Facts,
        inventory: Inventory,
        data: Data,
        seed: int,
        images: dict[str, Images],
        chosen: Chosen,
        labelled: np.ndarray,
        paired_images: PairedImages,
    ) -> None:
        self.facts = facts
        self.inventory = inventory
        self._batch_size = data.batch_size
        self._evaluation_batch_size = data.evaluation_batch_size
        self._seed = seed
        self._images = images
        self._chosen = chosen
        self._labelled = labelled
        # Held-out images may lie in the same array, and keep their labels.
        self._labels = {split: images[split].labels for split in chosen}
        if not facts.label_maps:
            self._labels["train"] = known_labels(images["train"].labels, labelled)
        self._pairing = choose_paired_images(
            paired_images, chosen["train"], self._labels["train"], data.batch_size, seed
        )
        self._by_class = None
        if data.classes_per_batch is not None:
            self._by_class = ClassBatches(data, chosen["train"], self._labels["train"], seed)
        # Bound to the instance and small: looking ahead needs the orders of two epochs.
        self._order = functools.lru_cache(maxsize=2)(self._new_order)
        self._ahead = LookAhead(self._read, self._following) if images["train"].look_ahead else None

    def steps_per_epoch(self) -> int:
        """Return the training batches in an epoch."""
        return num_steps(len(self._chosen["train"]), self._batch_size)

    def labelled_indices(self) -> np.ndarray:
        """Return the positions of the labelled training images in the whole training set, int64 [n], ascending.

        Written one a line, they are what `data.labelled_indices` reads.
        """
        return self._labelled.copy()

    def labels_of(self, split: str) -> np.ndarray:
        """Return the labels of all images of a split of `Facts.sizes` in order, int64 [N]; not those of label maps."""
        assert not self.facts.label_maps, "label maps are read with their images"
        return self._labels[split][self._chosen[split]]

    def batch(self, epoch: int, step: int) -> Batch:
        """Return one training batch with the paired images asked for, a pure function of (seed, epoch, step)."""
        if epoch < 0 or not 0 <= step < self.steps_per_epoch():
            raise IndexError(f"epoch {epoch}, step {step}: an epoch has the steps 0 to {self.steps_per_epoch() - 1}")
        return self._read((epoch, step)) if self._ahead is None else self._ahead.take((epoch, step))

    def evaluation_batches(self, split: str) -> Iterator[Batch]:
        """Yield all images of a split (train, validation or test) in order, without random changes, as epoch 0.

        Training images that are used without their label have none here either. Where sizes vary, a batch ends at each
        image of another size than the one before.
        """
        if split not in self._chosen:
            raise DataError(
                f"there is no {split} split, found {', '.join(self._chosen)}; "
                f"validation images are held out by data.validation_fraction"
            )
        chosen, images = self._chosen[split], self._images[split]
        sizes = images.sizes if isinstance(images, MappedImages) else None
        for step in range(num_steps(len(chosen), self._evaluation_batch_size)):
            whole = chosen[step * self._evaluation_batch_size : (step + 1) * self._evaluation_batch_size]
            for indices in of_one_size(whole, sizes):
                labels = self._labels[split][indices]
                yield Batch(images.evaluation_images(indices), labels, indices, split, 0, step)

    def evaluation_images(self, split: str, places: np.ndarray) -> Batch:
        """Return the images at some places of a split, int64 [B], as one batch of `evaluation_batches`."""
        indices = self._chosen[split][places]
        images = self._images[split].evaluation_images(indices)
        return Batch(images, self._labels[split][indices], indices, split, 0, 0)

    def recalibration_batches(self, images: int) -> Iterator[Batch]:
        """Yield the first training batches of epoch 0, without paired images, to estimate batch-norm statistics again.

        They are the same ones each time, and reading them leaves alone what is prepared ahead.

        Args:
            images: how many images are needed; whole batches are given until there are as many, one epoch at most.
        """
        order = self._new_order(0)
        for step in range(min(num_steps(images, self._batch_size), self.steps_per_epoch())):
            indices = order[step * self._batch_size : (step + 1) * self._batch_size]
            yield self._training_batch(indices if self._by_class is None else self._by_class.draw(0, step), 0, step)

    def close(self) -> None:
        """Stop the threads that decode ahead, if there are any."""
        if self._ahead is not None:
            self._ahead.close()
        for images in self._images.values():
            images.close()

    def _new_order(self, epoch: int) -> np.ndarray:
        return self._chosen["train"][epoch_order(len(self._chosen["train"]), self._seed, epoch)]

    def _read(self, place: Place) -> Batch:
        epoch, step = place
        if self._by_class is None:
            indices = self._order(epoch)[step * self._batch_size : (step + 1) * self._batch_size]
        else:
            indices = self._by_class.draw(epoch, step)
        if self._pairing is not None:
            indices = np.concatenate([indices, self._pairing(indices, epoch, step)])
        return self._training_batch(indices, epoch, step)

    def _training_batch(self, indices: np.ndarray, epoch: int, step: int) -> Batch:
        source = self._images["train"]
        if isinstance(source, MappedImages):
            images, labels = source.training_pairs(indices, epoch, step)
        else:
            images, labels = source.training_images(indices, epoch, step), self._labels["train"][indices]
        return Batch(images, labels, indices, "train", epoch, step)

    def _following(self, place: Place) -> Place:
        epoch, step = place
        return (epoch, step + 1) if step + 1 < self.steps_per_epoch() else (epoch + 1, 0)


def open_source(
    data: Data,
    seed: int,
    progress: Callable[[str, float], None] | None = None,
    *,
    paired_images: PairedImages = "none",
    strict_counts: bool = True,
    stored_limit_bytes: int = STORED_LIMIT_BYTES,
    before_decoding: BeforeDecoding | None = None,
    check: bool = True,
) -> Source:
    """Open the data set of a recipe; the first time, decode it into the cache.

    Args:
        data: the recipe's part about data.
        seed: the run's seed; decides the order and the random changes, not the subsets.
        progress: told what is being done, and the fraction that is done.
        paired_images: what is read beside each image of a training batch, which then holds twice as many.
        strict_counts: refuse published sets with another number of images than was published.
        stored_limit_bytes: larger sets are decoded while they are used.
        before_decoding: called with class names and image shape before pictures are decoded, which may take minutes,
            if they are pictures and the recipe says their size; what it raises is passed on.
        check: whether sets that are decoded while they are used are decoded once before, to find damaged pictures;
            for a training, not for a look at the set.

    Raises:
        RecipeError: fields that do not go together.
        DataError: files are missing, incomplete or damaged, or not what the recipe says.
    """
    remarks: list[str] = []

    def tell(text: str, fraction: float | None) -> None:
        if fraction is None:
            remarks.append(text)
        elif progress is not None:
            progress(text, fraction)

    # Made-up images stand in for those at the root; who wants others than digits may have forgotten the name.
    if check and data.root is not None and data.name == "digits":
        raise RecipeError(f"data.root={without_secret(data.root)}, but data.name=digits reads no files: leave it out")
    with saying_what_removal_moves(data):
        opened = open_images(data, seed, tell, strict_counts, stored_limit_bytes, before_decoding)
    num_classes = len(opened.class_names)
    if data.num_classes is not None and data.num_classes != num_classes:
        raise DataError(f"data.num_classes={data.num_classes}, but {data.name} has {num_classes} classes: leave it out")
    strata, mapped = opened.strata, opened.pixels is not None
    if mapped:
        refuse_for_label_maps(data, paired_images)
    refuse_with_class_batches(data, paired_images)
    chosen = choose(data, strata, 1 if mapped else num_classes)
    chosen, labelled = choose_labelled(data, chosen, strata["train"], 1 if mapped else num_classes)
    mean, std = choose_statistics(data, opened.image_shape[0], opened.measured)
    facts = Facts(
        name=data.name,
        num_classes=num_classes,
        class_names=opened.class_names,
        image_shape=opened.image_shape,
        mean=mean,
        std=std,
        sizes={split: len(chosen[split]) for split in ("train", "validation", "test") if split in chosen},
        fingerprint=_fingerprint(opened, chosen, labelled),
        cropped_while_decoding=opened.cropped_while_decoding,
        labelled_images=len(labelled),
        training_positions=len(opened.images["train"].labels),
        label_maps=mapped,
        evaluation_shape=opened.evaluation_shape,
    )
    images = opened.images
    if data.validation_fraction:
        remarks += notes_on_held_out(strata["test"])
    if "validation" not in images:
        images = images | {"validation": opened.held_out or images["train"]}
    if check:
        with saying_what_removal_moves(data):
            check_pictures(images, chosen, facts.fingerprint, tell)
    inventory = opened.inventory().with_notes(remarks)
    return Source(facts, inventory, data, seed, images, chosen, labelled, paired_images)


def _fingerprint(opened: Opened, chosen: Chosen, labelled: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(opened.content, sort_keys=True).encode())
    for split in sorted(chosen):
        digest.update(split.encode() + chosen[split].astype("<i8").tobytes())
    # Nothing is added where every image is labelled: that is the same training as one that says nothing of labels.
    if len(labelled) < len(chosen["train"]):
        digest.update(b"labelled" + labelled.astype("<i8").tobytes())
    return digest.hexdigest()

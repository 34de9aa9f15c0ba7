"""Does each image of a batch get a paired image of the right kind, drawn from the images in use and from no others?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from engine.data import NO_LABEL, Augmenter, Batch, Source, open_source
from engine.data.paired_images import choose_paired_images
from engine.errors import DataError
from engine.recipes import PairedImages
from engine.recipes.data import Augmentation, Data

KINDS = [kind for kind in get_args(PairedImages) if kind != "none"]
SUBSETS: dict[str, dict[str, Any]] = {
    "all": {},
    "limited": {"train_limit": 200, "validation_fraction": 0.2},
    "labelled only": {"labelled_fraction": 0.3, "unlabelled": "drop"},
    "partly labelled": {"labelled_fraction": 0.3},
}


def digits(paired_images: PairedImages = "none", seed: int = 0, **fields: Any) -> Source:
    return open_source(Data(name="digits", **({"batch_size": 64} | fields)), seed=seed, paired_images=paired_images)


def epoch(source: Source, number: int = 0) -> list[Batch]:
    return [source.batch(number, step) for step in range(source.steps_per_epoch())]


def halves(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    first, second = batch.indices.reshape(2, -1)
    return first, second


def assert_same(one: Batch, other: Batch) -> None:
    for field in dataclasses.fields(Batch):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("name", ["digits", "synthetic"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_half_is_the_plain_batch_and_the_second_as_long(kind: PairedImages, name: Any) -> None:
    fields = {"num_classes": 10, "synthetic_images": 500, "image_size": 8} if name == "synthetic" else {}
    data = Data(name=name, batch_size=64, **fields)
    plain, source = open_source(data, 3), open_source(data, 3, paired_images=kind)
    assert source.facts == plain.facts
    assert source.steps_per_epoch() == plain.steps_per_epoch() == 8
    whole = np.concatenate([batch.images for batch in plain.evaluation_batches("train")])
    labels = np.concatenate([batch.labels for batch in plain.evaluation_batches("train")])
    for batch, alone in zip(epoch(source, 2), epoch(plain, 2), strict=True):
        number = len(alone.labels)
        assert len(batch.images) == len(batch.labels) == len(batch.indices) == 2 * number
        assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == (np.uint8, np.int64, np.int64)
        assert (batch.split, batch.epoch, batch.step) == (alone.split, alone.epoch, alone.step)
        first_half = dataclasses.replace(
            batch, images=batch.images[:number], labels=batch.labels[:number], indices=batch.indices[:number]
        )
        assert_same(first_half, alone)
        np.testing.assert_array_equal(batch.images, whole[batch.indices])
        np.testing.assert_array_equal(batch.labels, labels[batch.indices])


@pytest.mark.parametrize("kind", KINDS)
def test_paired_images_are_a_pure_function_of_seed_epoch_and_step(kind: PairedImages) -> None:
    first = digits(kind)
    walked = {(number, batch.step): batch for number in range(3) for batch in epoch(first, number)}
    resumed = digits(kind)
    for place in ((2, 5), (1, 0), (2, 7), (0, 7), (2, 5)):
        assert_same(resumed.batch(*place), walked[place])


@pytest.mark.parametrize("kind", ["same_class", "second_batch"])
def test_paired_images_are_drawn_anew_for_each_seed_epoch_and_step(kind: PairedImages) -> None:
    positions, labels = np.arange(100), np.arange(100) % 2
    drawn = []
    for seed in (0, 1):
        paired = choose_paired_images(kind, positions, labels, 50, seed)
        assert paired is not None
        drawn += [tuple(paired(positions[:50], *place)) for place in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len(set(drawn)) == 8


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [64, 49])
def test_paired_images_are_among_the_training_images_in_use(kind: PairedImages, subset: str, batch_size: int) -> None:
    source = digits(kind, batch_size=batch_size, **SUBSETS[subset])
    used = np.concatenate([batch.indices for batch in source.evaluation_batches("train")])
    assert source.facts.training_positions == 500
    assert used.max() < 500
    batches = epoch(source, 1)
    rest = len(used) % batch_size or batch_size
    assert [len(batch.indices) for batch in batches] == [2 * batch_size] * (len(batches) - 1) + [2 * rest]
    seconds = [halves(batch)[1] for batch in batches]
    assert set(np.concatenate(seconds)) <= set(used)


def test_no_paired_images_unless_asked_for() -> None:
    assert_same(digits().batch(1, 2), open_source(Data(name="digits", batch_size=64), seed=0).batch(1, 2))
    assert len(digits().batch(1, 2).labels) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_has_no_paired_images(kind: PairedImages) -> None:
    plain, source = digits(validation_fraction=0.2), digits(kind, validation_fraction=0.2)
    for split in ("train", "validation", "test"):
        for batch, alone in zip(source.evaluation_batches(split), plain.evaluation_batches(split), strict=True):
            assert_same(batch, alone)


@pytest.mark.parametrize("subset", SUBSETS)
def test_an_image_and_its_pair_are_of_one_class(subset: str) -> None:
    source = digits("same_class", **SUBSETS[subset])
    themselves = others = 0
    for number in range(5):
        for batch in epoch(source, number):
            first, second = halves(batch)
            one, other = batch.labels.reshape(2, -1)
            np.testing.assert_array_equal(one, other)
            themselves += int((first == second)[one != NO_LABEL].sum())
            others += int((first != second)[one != NO_LABEL].sum())
    # Each of at most 50 images of a class is its own pair with that chance.
    assert 0 < themselves < others


def test_an_image_without_a_label_is_its_own_pair() -> None:
    source = digits("same_class", labelled_fraction=0.2)
    unlabelled = 0
    for batch in epoch(source):
        first, second = halves(batch)
        hidden = ~np.isin(first, source.labelled_indices())
        np.testing.assert_array_equal(first[hidden], second[hidden])
        assert np.isin(second[~hidden], source.labelled_indices()).all()
        unlabelled += int(hidden.sum())
    assert unlabelled == 500 - source.facts.labelled_images


def test_every_image_of_the_class_in_use_is_drawn_equally_often() -> None:
    labels = np.array([0, 1, 2, 1, NO_LABEL, 1, 3, 1, 1, 1, 4, 4, 1])
    training = np.array([0, 1, 3, 4, 5, 6, 7, 8, 11])  # 4 has no label; 2, 9, 10 and 12 are not in use
    paired = choose_paired_images("same_class", training, labels, 100, seed=7)
    assert paired is not None
    batch = np.tile(training, 100)
    drawn = np.stack([paired(batch, 0, step) for step in range(40)])
    for position in (0, 4, 6, 11):
        assert (drawn[:, batch == position] == position).all()
    counts = np.bincount(drawn[:, batch == 7].reshape(-1), minlength=13)
    assert np.flatnonzero(counts).tolist() == [1, 3, 5, 7, 8]
    # Chi-square of 4 degrees of freedom: 18.5 is exceeded once in a thousand seeds.
    assert ((counts[[1, 3, 5, 7, 8]] - 800) ** 2 / 800).sum() < 18.5


def test_a_pair_does_not_follow_from_the_place_in_the_batch() -> None:
    labels = np.zeros(16, dtype=np.int64)
    paired = choose_paired_images("same_class", np.arange(16), labels, 8, seed=0)
    assert paired is not None
    pairs = np.stack([paired(np.arange(8), 0, step) for step in range(200)])
    assert all(len(np.unique(pairs[:, place])) == 16 for place in range(8))


def test_same_image_is_the_image_once_more_and_augmented_differently() -> None:
    source = digits("same_image", augmentation=Augmentation(crop_padding=2))
    augmenter = Augmenter(Augmentation(crop_padding=2), source.facts, 0, torch.device("cpu"))
    for batch in epoch(source):
        first, second = halves(batch)
        np.testing.assert_array_equal(first, second)
        one, other = augmenter.training_pixels(batch).chunk(2)
        differ = (one != other).flatten(1).any(dim=1)
        # Of 25 shifts, two are equal once in 25 times.
        assert differ.float().mean() > 0.7


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("batch_size", [64, 49])
def test_a_second_batch_belongs_to_another_order_of_the_same_epoch(subset: str, batch_size: int) -> None:
    source = digits("second_batch", batch_size=batch_size, **SUBSETS[subset])
    used = np.concatenate([batch.indices for batch in source.evaluation_batches("train")])
    orders = []
    for number in range(3):
        pairs = [halves(batch) for batch in epoch(source, number)]
        orders += [np.concatenate([pair[half] for pair in pairs]) for half in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), used)
    assert len({tuple(order) for order in orders}) == 6
    for first, second in zip(orders[::2], orders[1::2], strict=True):
        # Of two independent orders, one image on average has the same place in both.
        assert (first == second).sum() < 10


def open_parquet(writers: Any, root: Path, kind: PairedImages, **fields: Any) -> Source:
    if not root.exists():
        # Large beside the crops, so that two crops of an image hardly ever agree.
        writers.parquet(root / "train.parquet", writers.images(20, 40), np.arange(20) % 4, "image")
        writers.parquet(root / "test.parquet", writers.images(8, 40), np.arange(8) % 4, "image")
    data = Data(name="parquet", root=str(root), **({"batch_size": 6, "image_size": 10} | fields))
    return open_source(data, seed=5, stored_limit_bytes=10, paired_images=kind)


def test_images_that_are_cropped_while_decoding_get_two_crops(writers: Any, tmp_path: Path) -> None:
    source = open_parquet(writers, tmp_path / "set", "same_image", augmentation=Augmentation(random_resized_crop=True))
    assert source.facts.cropped_while_decoding
    for batch in epoch(source):
        one, other = np.split(batch.images, 2)
        assert (one != other).any(axis=(1, 2, 3)).all()
    source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_paired_images_are_decoded_ahead_in_any_order_of_places(
    kind: PairedImages, writers: Any, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"augmentation": Augmentation(random_resized_crop=True)}
    first, second = (open_parquet(writers, tmp_path / "set", kind, **fields) for _ in range(2))
    walked = {(number, batch.step): batch for number in range(2) for batch in epoch(first, number)}
    assert [len(walked[0, step].labels) for step in range(4)] == [12, 12, 12, 4]
    for place in ((1, 2), (0, 3), (1, 0), (1, 1), (0, 0)):
        assert_same(second.batch(*place), walked[place])
    first.close()
    second.close()


@pytest.mark.parametrize(("images", "sizes"), [(1, [64]), (64, [64]), (65, [64, 64]), (10**6, [64] * 7 + [52])])
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_recalibration_batches_are_the_first_plain_ones(kind: PairedImages, images: int, sizes: list[int]) -> None:
    plain, source = digits(), digits(kind)
    for _ in range(2):
        batches = list(source.recalibration_batches(images))
        assert [len(batch.labels) for batch in batches] == sizes
        for step, batch in enumerate(batches):
            assert_same(batch, plain.batch(0, step))
        source.batch(3, 1)


def test_recalibration_batches_leave_what_is_decoded_ahead_alone(
    writers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_parquet(writers, tmp_path / "set", "second_batch")
    taken: list[tuple[int, int]] = []
    ahead: Any = source._ahead
    take: Callable[[tuple[int, int]], Batch] = ahead.take
    monkeypatch.setattr(ahead, "take", lambda place: taken.append(place) or take(place))
    source.batch(1, 0)
    under_way = dict(ahead._under_way)
    assert [len(batch.labels) for batch in source.recalibration_batches(13)] == [6, 6, 6]
    assert (taken, ahead._under_way) == ([(1, 0)], under_way)
    source.close()


def test_wrong_requests_are_told_as_without_paired_images() -> None:
    source = digits("same_class", train_limit=100)
    with pytest.raises(IndexError, match="epoch 0, step 2: an epoch has the steps 0 to 1"):
        source.batch(0, 2)
    with pytest.raises(DataError, match=r"data.batch_size=101, but there are 100 training images"):
        digits("same_class", train_limit=100, batch_size=101)

"""Do the right training images keep their label, and does no other label or dropped image reach a batch?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import NO_LABEL, Batch, Facts, Source, open_source
from engine.data.labels import choose_labelled
from engine.data.splits import choose
from engine.errors import DataError
from engine.recipes.data import Data

LABELS = np.arange(20) % 4
LISTED = [1, 2, 3, 4, 9, 14, 19]


def digits(seed: int = 0, **fields: Any) -> Source:
    return open_source(Data(name="digits", **({"batch_size": 64} | fields)), seed=seed)


def epoch(source: Source, number: int = 0) -> list[Batch]:
    return [source.batch(number, step) for step in range(source.steps_per_epoch())]


def true_labels() -> np.ndarray:
    return np.concatenate([batch.labels for batch in digits().evaluation_batches("train")])


def write(path: Path, indices: Sequence[int] | np.ndarray) -> str:
    path.write_text("".join(f"{index}\n" for index in indices))
    return str(path)


def assert_same(one: Batch, other: Batch) -> None:
    for field in dataclasses.fields(Batch):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=8),
    fractions=st.tuples(st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True)).map(sorted),
    seed=st.integers(0, 5),
)
def test_counts_are_exact_in_each_class_and_fractions_are_nested(
    counts: list[int], fractions: list[float], seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    found = []
    for fraction in fractions:
        data = Data(
            name="synthetic", num_classes=len(counts), batch_size=1, subset_seed=seed, labelled_fraction=fraction
        )
        chosen = choose(data, {"train": labels, "test": labels}, len(counts))
        left, labelled = choose_labelled(data, chosen, labels, len(counts))
        assert np.bincount(labels[labelled]).tolist() == [max(1, round(fraction * count)) for count in counts]
        assert (np.diff(labelled) > 0).all()
        assert labelled.dtype == np.int64
        np.testing.assert_array_equal(left["train"], np.arange(len(labels)))
        found.append(set(labelled.tolist()))
    assert found[0] <= found[1]


def test_only_images_in_use_are_labelled_and_subset_seed_alone_decides() -> None:
    fields = {"labelled_fraction": 0.2, "train_limit": 200, "validation_fraction": 0.3}
    source, other_seed, other_subset = digits(**fields), digits(seed=1, **fields), digits(subset_seed=1, **fields)
    labelled = source.labelled_indices()
    used = np.concatenate([batch.indices for batch in source.evaluation_batches("train")])
    assert set(labelled) < set(used)
    assert np.bincount(true_labels()[labelled]).tolist() == [
        round(0.2 * count) for count in np.bincount(true_labels()[used])
    ]
    np.testing.assert_array_equal(other_seed.labelled_indices(), labelled)
    assert set(other_subset.labelled_indices()) != set(labelled)


@pytest.mark.parametrize("batch_size", [64, 499])
def test_unlabelled_images_are_used_without_their_label(batch_size: int) -> None:
    plain, source = digits(batch_size=batch_size), digits(batch_size=batch_size, labelled_fraction=0.1)
    assert source.steps_per_epoch() == plain.steps_per_epoch()
    assert (source.facts.sizes, source.facts.labelled_images) == (plain.facts.sizes, len(source.labelled_indices()))
    without = 0
    for batch, whole in zip(epoch(source, 2), epoch(plain, 2), strict=True):
        np.testing.assert_array_equal(batch.images, whole.images)
        np.testing.assert_array_equal(batch.indices, whole.indices)
        labelled = np.isin(batch.indices, source.labelled_indices())
        np.testing.assert_array_equal(batch.labels, np.where(labelled, whole.labels, NO_LABEL))
        assert batch.labels.dtype == np.int64
        without += int((batch.labels == NO_LABEL).sum())
    assert without == 500 - source.facts.labelled_images > 400


def test_an_evaluation_of_the_training_images_tells_no_more_labels_and_held_out_images_keep_theirs() -> None:
    source, plain = (digits(validation_fraction=0.2, **fields) for fields in ({"labelled_fraction": 0.1}, {}))
    for batch in source.evaluation_batches("train"):
        hidden = ~np.isin(batch.indices, source.labelled_indices())
        assert (batch.labels[hidden] == NO_LABEL).all()
        assert (batch.labels[~hidden] == true_labels()[batch.indices[~hidden]]).all()
    for split in ("validation", "test"):
        for batch, whole in zip(source.evaluation_batches(split), plain.evaluation_batches(split), strict=True):
            assert_same(batch, whole)
    for batch in source.evaluation_batches("validation"):
        np.testing.assert_array_equal(batch.labels, true_labels()[batch.indices])


def test_a_batch_may_hold_no_label_at_all_and_a_class_may_have_none(tmp_path: Path) -> None:
    source = digits(labelled_indices=write(tmp_path / "one.txt", [123]))
    with_label = [batch for batch in epoch(source) if (batch.labels != NO_LABEL).any()]
    assert len(with_label) == 1
    assert with_label[0].indices[with_label[0].labels != NO_LABEL].tolist() == [123]


@pytest.mark.parametrize("unlabelled", ["use", "drop"])
def test_all_labelled_is_the_same_as_saying_nothing(unlabelled: str, tmp_path: Path) -> None:
    plain = digits()
    every = write(tmp_path / "all.txt", range(500))
    for fields in ({"labelled_fraction": 1.0}, {"labelled_indices": every}):
        source = digits(unlabelled=unlabelled, **fields)
        assert source.facts == plain.facts
        assert source.facts.labelled_images == 500
        for batch, whole in zip(epoch(source, 1), epoch(plain, 1), strict=True):
            assert_same(batch, whole)


def test_dropped_images_leave_the_epoch() -> None:
    source, plain = digits(labelled_fraction=0.3, unlabelled="drop"), digits()
    labelled = source.labelled_indices()
    assert source.facts.sizes == {"train": len(labelled), "test": 1297}
    assert source.facts.labelled_images == len(labelled)
    assert (source.facts.mean, source.facts.std) == (plain.facts.mean, plain.facts.std)
    batches = epoch(source, 1)
    assert [len(batch.labels) for batch in batches] == [64, 64, len(labelled) - 128]
    np.testing.assert_array_equal(np.sort(np.concatenate([batch.indices for batch in batches])), labelled)
    for batch in (*batches, *source.evaluation_batches("train")):
        np.testing.assert_array_equal(batch.labels, true_labels()[batch.indices])


def test_the_labelled_images_are_those_of_used_and_dropped_ones_alike() -> None:
    used, dropped = digits(labelled_fraction=0.3), digits(labelled_fraction=0.3, unlabelled="drop")
    np.testing.assert_array_equal(used.labelled_indices(), dropped.labelled_indices())


def parquet(writers: Any, root: Path, poisoned: Sequence[int], contents: bytes | None = None) -> str:
    """Write 20 pictures of 4 classes; the poisoned ones get another label, and other pixels or none."""
    images, labels = writers.images(20, 10), LABELS.copy()
    labels[poisoned] = (labels[poisoned] + 1) % 4
    images[poisoned] = 255 - images[poisoned]
    rows = [{"bytes": writers.png(image), "path": None} for image in images]
    for place in poisoned if contents is not None else ():
        rows[place]["bytes"] = contents
    writers.parquet(root / "train.parquet", images, labels, "image", contents=rows)
    writers.parquet(root / "test.parquet", images[:8], LABELS[:8], "image")
    return str(root)


def open_parquet(root: str, limit: int, **fields: Any) -> Source:
    fields = {"batch_size": 4, "image_size": 10, "resize_size": 10} | fields
    return open_source(Data(name="parquet", root=root, **fields), seed=5, stored_limit_bytes=limit)


@pytest.mark.parametrize("limit", [1 << 30, 10], ids=["stored", "decoded ahead"])
def test_pixels_and_labels_of_dropped_images_change_nothing(limit: int, writers: Any, tmp_path: Path) -> None:
    others = [place for place in range(20) if place not in LISTED]
    fields = {"labelled_indices": write(tmp_path / "listed.txt", LISTED), "unlabelled": "drop"}
    clean = open_parquet(parquet(writers, tmp_path / "clean", []), limit, **fields)
    poisoned = open_parquet(parquet(writers, tmp_path / "poisoned", others), limit, **fields)
    assert clean.facts.fingerprint != poisoned.facts.fingerprint
    for number in range(3):
        for one, other in zip(epoch(clean, number), epoch(poisoned, number), strict=True):
            assert_same(one, other)
    clean.close()
    poisoned.close()


def test_dropped_pictures_are_not_decoded(writers: Any, tmp_path: Path) -> None:
    others = [place for place in range(20) if place not in LISTED]
    root = parquet(writers, tmp_path / "set", others, contents=b"no picture")
    listed = write(tmp_path / "listed.txt", LISTED)
    source = open_parquet(root, 10, labelled_indices=listed, unlabelled="drop")
    seen = np.concatenate([batch.indices for batch in epoch(source)])
    assert sorted(seen) == LISTED
    source.close()
    with pytest.raises(DataError, match="13 of 28 pictures cannot be used: .* cannot be decoded"):
        open_parquet(root, 10, labelled_indices=listed)


@pytest.mark.parametrize("limit", [1 << 30, 10], ids=["stored", "decoded ahead"])
def test_labels_of_unlabelled_images_change_nothing(limit: int, writers: Any, tmp_path: Path) -> None:
    listed = write(tmp_path / "listed.txt", LISTED)
    source = open_parquet(parquet(writers, tmp_path / "set", []), limit, batch_size=6, labelled_indices=listed)
    batches = epoch(source, 3)
    assert [len(batch.labels) for batch in batches] == [6, 6, 6, 2]
    for batch in batches:
        known = np.isin(batch.indices, LISTED)
        np.testing.assert_array_equal(batch.labels, np.where(known, LABELS[batch.indices], NO_LABEL))
        np.testing.assert_array_equal(batch.images, writers.images(20, 10)[batch.indices])
    source.close()


def test_a_batch_must_not_hold_more_than_the_labelled_images() -> None:
    number = digits(labelled_fraction=0.1).facts.labelled_images
    digits(labelled_fraction=0.1, unlabelled="drop", batch_size=number)
    with pytest.raises(
        DataError,
        match=rf"^data.batch_size=64, but data.unlabelled=drop leaves {number} labelled of 500 training images: give",
    ):
        digits(labelled_fraction=0.1, unlabelled="drop")


def test_the_fingerprint_names_the_labelled_images(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    sources = [
        digits(),
        digits(labelled_fraction=0.3),
        digits(labelled_fraction=0.3, subset_seed=1),
        digits(labelled_fraction=0.3, unlabelled="drop"),
        digits(labelled_indices=write(path, range(100))),
        digits(labelled_indices=write(path, range(1, 101))),
    ]
    assert len({source.facts.fingerprint for source in sources}) == len(sources)
    assert sources[4].facts.labelled_images == sources[5].facts.labelled_images == 100


def test_facts_survive_json_and_old_ones_had_every_label() -> None:
    facts = digits(labelled_fraction=0.1, train_limit=400).facts
    values = json.loads(json.dumps(facts.to_json()))
    assert values["labelled_images"] == facts.labelled_images < 100
    assert values["training_positions"] == facts.training_positions == 500
    assert Facts.from_json(values) == facts
    del values["labelled_images"], values["training_positions"]
    old = Facts.from_json(values)
    assert (old.labelled_images, old.training_positions) == (400, 400)

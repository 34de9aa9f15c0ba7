"""Is what is remembered of an image the running mean of its predictions, and the same in memory and in a folder?"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import RecipeError
from engine.streams import generator
from tests.knowledge.stores import (
    CLASSES,
    GROUPS,
    IMAGES,
    KINDS,
    everything,
    fill,
    identical,
    ids,
    probabilities,
    store_of,
)


def test_the_first_prediction_is_kept_and_later_ones_are_averaged() -> None:
    store = store_of(classes=3)
    store.remember(1, ids(4), torch.tensor([[0.5, 0.25, 0.25]]))
    assert store.recall(1, ids(4)).tolist() == [[0.5, 0.25, 0.25]]
    store.remember(1, ids(4), torch.tensor([[0.0, 0.0, 1.0]]))
    # 0.25 new + 0.75 old; all of these are float16 numbers.
    assert store.recall(1, ids(4)).tolist() == [[0.375, 0.1875, 0.4375]]
    assert store.known == 1


def test_other_groups_and_images_stay_unknown() -> None:
    store = store_of()
    store.remember(1, ids(4, 2), probabilities(rows=2))
    known = everything(store).isfinite()
    assert known[1, [2, 4]].all() and int(known.sum()) == 2 * CLASSES
    recalled = store.recall(1, ids(0, 4, 4))
    assert recalled.dtype == torch.float32 and recalled.isnan().all(dim=1).tolist() == [True, False, False]
    assert torch.equal(recalled[1], recalled[2])


def test_other_rows_keep_their_bits() -> None:
    store = store_of()
    for group in range(GROUPS):
        store.remember(group, np.arange(IMAGES), probabilities(group, rows=IMAGES))
    before = everything(store)
    store.remember(2, ids(7), probabilities("new", rows=1))
    changed = (everything(store) != before).any(dim=2)
    assert changed.nonzero().tolist() == [[2, 7]]


def test_an_averaging_weight_of_1_keeps_the_last_prediction() -> None:
    store, fresh = store_of(averaging_weight=1.0), store_of()
    for key in range(3):
        store.remember(0, ids(3), probabilities(key, rows=1))
    fresh.remember(0, ids(3), probabilities(2, rows=1))
    assert identical(store.recall(0, ids(3)), fresh.recall(0, ids(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_repeats_counts_once_with_its_weighted_mean(kind: str) -> None:
    indices, weights = ids(5, 3, 5, 9, 5, 3), torch.tensor([0.2, 0.5, 0.7, 0.4, 0.1, 0.5])
    values = probabilities(rows=6)
    repeating, once = store_of(**KINDS[kind]), store_of(**KINDS[kind])
    for _ in range(2):
        repeating.remember(0, indices, values, weights)
        means = [
            np.average(values[indices == image].numpy(), axis=0, weights=weights[indices == image].numpy())
            for image in (3, 5, 9)
        ]
        once.remember(0, ids(3, 5, 9), torch.from_numpy(np.array(means)))
        # Logits are shifted by image: their probabilities are compared.
        found, expected = (
            everything(store).softmax(dim=2) if kind == "logits" else everything(store) for store in (repeating, once)
        )
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0, equal_nan=True)


def test_the_order_of_a_pair_and_of_images_does_not_matter() -> None:
    indices = torch.arange(IMAGES).repeat(2)
    values, weights = probabilities(rows=2 * IMAGES), torch.rand(2 * IMAGES, generator=generator("weights"))
    found = []
    for key in range(4):
        order = torch.randperm(len(indices), generator=generator("order", key))
        store = store_of()
        store.remember(0, indices[order].numpy(), values[order], weights[order])
        found.append(everything(store))
    assert all(identical(found[0], each) for each in found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_does_not_matter(kind: str) -> None:
    threads = torch.get_num_threads()
    indices = torch.randint(400, (512,), generator=generator("threads")).numpy()
    found = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            store = store_of(images=400, classes=301, averaging_weight=0.3, **KINDS[kind])
            for step in range(3):
                store.remember(0, indices, probabilities(step, rows=512, classes=301))
            found.append(everything(store))
    finally:
        torch.set_num_threads(threads)
    assert identical(*found)


def test_without_weights_all_count_the_same_and_with_a_weight_of_0_nothing() -> None:
    values = probabilities(rows=3)
    plain, weighted = store_of(), store_of()
    plain.remember(0, ids(1, 1), values[:2])
    weighted.remember(0, ids(1, 1, 1, 2), torch.cat([values, values[:1]]), torch.tensor([3.0, 3.0, 0.0, 0.0]))
    assert identical(everything(plain), everything(weighted)) and weighted.known == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_never_stored(kind: str) -> None:
    store, good = store_of(**KINDS[kind]), store_of(**KINDS[kind])
    values = probabilities(rows=6)
    good.remember(0, ids(0, 5), values[[0, 5]])
    for row, bad in enumerate((torch.nan, torch.inf, -torch.inf), start=1):
        values[row, row] = bad
    values[4, 0], values[4, 1] = torch.inf, -torch.inf
    store.remember(0, ids(0, 1, 2, 3, 4, 5), values)
    assert store.known == 2 and identical(everything(store), everything(good))
    store.remember(0, ids(0, 0), values[[1, 2]])
    assert identical(everything(store), everything(good))


def test_probabilities_are_clipped_and_normalised_and_none_are_unknown() -> None:
    store = store_of(classes=3)
    store.remember(0, ids(0, 1, 2), torch.tensor([[1.5, -0.7, 0.5], [0.0, 0.0, 0.0], [-1.0, -2.0, 0.0]]))
    assert store.recall(0, ids(0)).tolist() == [[0.75, 0.0, 0.25]]
    assert store.known == 1
    store.remember(0, ids(0), torch.zeros(1, 3))
    assert store.recall(0, ids(0)).tolist() == [[0.75, 0.0, 0.25]]


def test_a_prediction_is_not_written_into_and_may_have_a_gradient() -> None:
    for kind in KINDS:
        values = probabilities(rows=2).requires_grad_()
        before = values.detach().clone()
        store = store_of(**KINDS[kind])
        for _ in range(2):
            store.remember(0, ids(1, 2), values)
        assert torch.equal(values, before) and not store.recall(0, ids(1)).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_predictions_of_other_types_are_taken(dtype: torch.dtype) -> None:
    store = store_of()
    values = probabilities(rows=2).to(dtype)
    store.remember(0, ids(1, 2), values)
    torch.testing.assert_close(store.recall(0, ids(1, 2)), values.float(), atol=5e-3, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0, 400.0])
def test_float16_keeps_probabilities(scale: float) -> None:
    store = store_of(images=64, classes=1000, averaging_weight=0.01)
    for step in range(30):
        values = (scale * torch.randn(64, 1000, generator=generator("scale", step))).softmax(dim=1)
        store.remember(0, np.arange(64), values)
        stored = store.changes()["values"].float()
        assert float(stored.min()) >= 0 and float((stored.sum(dim=1) - 1).abs().max()) <= 1e-3
    recalled = store.recall(0, np.arange(64))
    assert float(recalled.min()) >= 0
    torch.testing.assert_close(recalled.sum(dim=1), torch.ones(64), atol=1e-5, rtol=0)


def test_logits_are_kept_up_to_a_shift() -> None:
    store = store_of(content="logits", classes=3)
    store.remember(0, ids(0, 1), torch.tensor([[3.0, 1.0, 5.0], [0.0, -1e30, 2.0]]))
    assert store.recall(0, ids(0, 1)).tolist() == [[-2.0, -4.0, 0.0], [-2.0, -65504.0, 0.0]]
    store.remember(0, ids(0), torch.tensor([[100.0, 92.0, 96.0]]))
    # 0.25 (0, -8, -4) + 0.75 (-2, -4, 0)
    assert store.recall(0, ids(0)).tolist() == [[-1.5, -5.0, -1.0]]


def test_publishing_copies_known_rows_only() -> None:
    for kind in KINDS:
        store = store_of(**KINDS[kind])
        store.remember(0, ids(1, 2), probabilities(rows=2))
        store.remember(2, ids(2, 3), probabilities("other", rows=2))
        before = everything(store)
        store.changes()
        store.publish(0, 2)
        after = everything(store)
        assert identical(after[:2], before[:2]) and identical(after[2, 1:3], before[0, 1:3])
        assert identical(after[2, 3:], before[2, 3:]) and after[2, 0].isnan().all()
        assert store.changes()["rows"].tolist() == [2 * IMAGES + 1, 2 * IMAGES + 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_store_equals_one_in_memory_and_leaves_no_file(kind: str, tmp_path: Path) -> None:
    memory, mapped = store_of(**KINDS[kind]), store_of(**KINDS[kind], folder=tmp_path)
    for _ in zip(fill(memory, steps=8), fill(mapped, steps=8), strict=True):
        assert identical(everything(memory), everything(mapped))
    first, second = memory.changes(), mapped.changes()
    assert all(identical(first[name], second[name]) for name in first)
    assert mapped.bytes == memory.bytes
    assert list(tmp_path.iterdir()) == []


def test_bytes_count_values_and_marks() -> None:
    assert store_of().bytes == GROUPS * IMAGES * (2 * CLASSES + 2)
    assert store_of(top_k=2).bytes == GROUPS * IMAGES * ((2 + 2) * 2 + 2)
    assert store_of(images=1, classes=40_000, top_k=2).bytes == GROUPS * ((2 + 4) * 2 + 2)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder, words in ((tmp_path / "none", "no such folder"), (file, "is no folder")):
        with pytest.raises(RecipeError, match=f"method.knowledge_folder={folder}: .*{words}"):
            store_of(folder=folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    needed = GROUPS * IMAGES * CLASSES * 2
    with pytest.raises(RecipeError, match=f"{needed} bytes, but the disk has 10 free"):
        store_of(folder=tmp_path)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(RecipeError, match=r"method.knowledge_folder=.*Permission denied"):
        store_of(folder=tmp_path)


@pytest.mark.parametrize("key", range(5))
def test_random_use_follows_a_plain_dictionary(key: int) -> None:
    store = store_of(averaging_weight=0.5)
    plain: dict[tuple[int, int], np.ndarray] = {}
    for step in range(60):
        random = np.random.default_rng([key, step])
        group, other = random.permutation(GROUPS)[:2].tolist()
        indices = random.integers(0, IMAGES, 5)
        if random.random() < 0.1:
            store.publish(group, other)
            plain |= {(other, image): value for (source, image), value in plain.items() if source == group}
            continue
        values, weights = random.dirichlet(np.ones(CLASSES), 5), random.uniform(0, 1, 5).round(1)
        values[random.random(5) < 0.1] = np.nan
        store.remember(group, indices, torch.from_numpy(values), torch.from_numpy(weights))
        for image in set(indices.tolist()):
            rows = (indices == image) & (weights > 0) & np.isfinite(values).all(axis=1)
            if rows.any():
                mean = np.average(values[rows], axis=0, weights=weights[rows])
                old = plain.get((group, image))
                plain[group, image] = mean if old is None else 0.5 * mean + 0.5 * old
        expected = np.full((GROUPS, IMAGES, CLASSES), np.nan)
        for place, value in plain.items():
            expected[place] = value
        torch.testing.assert_close(
            everything(store).double(), torch.from_numpy(expected), atol=1e-3, rtol=0, equal_nan=True
        )
        assert store.known == len(plain)

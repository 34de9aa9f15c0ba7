"""Is what is remembered of an image the running mean of its predictions, and is it the same after a checkpoint?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import RecipeError, RunError
from engine.knowledge import KnowledgeStore, merge_changes
from engine.streams import generator

IMAGES, CLASSES, GROUPS, WEIGHT = 12, 6, 3, 0.25
KINDS: dict[str, dict[str, Any]] = {"all": {}, "logits": {"content": "logits"}, "largest": {"top_k": 2}}


def store_of(**settings: Any) -> KnowledgeStore:
    sizes = {"images": IMAGES, "classes": CLASSES, "groups": GROUPS, "averaging_weight": WEIGHT}
    return KnowledgeStore(**sizes | settings)


def probabilities(*key: int | str, rows: int, classes: int = CLASSES) -> Tensor:
    return (2.0 * torch.randn(rows, classes, generator=generator("probabilities", *key))).softmax(dim=1)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def everything(store: KnowledgeStore) -> Tensor:
    return torch.stack([store.recall(group, np.arange(store.images)) for group in range(store.groups)])


def identical(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and np.array_equal(first.numpy(), second.numpy(), equal_nan=True)


def fill(store: KnowledgeStore, *key: int | str, steps: int) -> Iterator[None]:
    """Remember random batches in which images repeat, and stop after each."""
    for step in range(steps):
        random = generator("fill", *key, step)
        indices = torch.randint(store.images, (7,), generator=random).numpy()
        group = int(torch.randint(store.groups, (), generator=random))
        values = torch.randn(7, store.classes, generator=random)
        values = values if store.content == "logits" else values.softmax(dim=1)
        store.remember(group, indices, values, torch.rand(7, generator=random))
        yield


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


def test_the_largest_are_kept_and_the_others_share_the_rest() -> None:
    store = store_of(classes=4, top_k=2, averaging_weight=0.5)
    store.remember(0, ids(0), torch.tensor([[0.5, 0.0625, 0.25, 0.1875]]))
    assert store.recall(0, ids(0)).tolist() == [[0.5, 0.125, 0.25, 0.125]]
    assert store.take_lost_mass() == pytest.approx(0.0625)
    assert store.take_lost_mass() is None
    store.remember(0, ids(0), torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    # The mean is (0.25, 0.0625, 0.125, 0.5625): classes 0 and 3 stay, 1 and 2 share 0.1875.
    assert store.recall(0, ids(0)).tolist() == [[0.25, 0.09375, 0.09375, 0.5625]]
    assert store.take_lost_mass() == pytest.approx(0.03125)


@pytest.mark.parametrize("top_k", [1, 7, 39])
def test_the_largest_follow_a_plain_reference(top_k: int) -> None:
    store = store_of(images=5, classes=40, top_k=top_k)
    dense: np.ndarray | None = None
    for step in range(4):
        values = probabilities(step, rows=5, classes=40)
        store.remember(1, np.arange(5), values)
        fresh = values.numpy().astype(np.float64)
        mean = fresh if dense is None else WEIGHT * fresh + (1 - WEIGHT) * dense
        order = np.argsort(-mean, axis=1)
        dense = mean.copy()
        np.put_along_axis(dense, order[:, top_k:], 0, axis=1)
        rest = (1 - dense.sum(axis=1, keepdims=True)) / (40 - top_k)
        np.put_along_axis(dense, order[:, top_k:], np.repeat(rest, 40 - top_k, axis=1), axis=1)
        torch.testing.assert_close(store.recall(1, np.arange(5)).double(), torch.from_numpy(dense), atol=1e-3, rtol=0)
        assert store.take_lost_mass() == pytest.approx(0.5 * np.abs(mean - dense).sum(axis=1).mean(), abs=1e-3)


def test_nothing_is_lost_where_all_is_stored() -> None:
    store = store_of()
    store.remember(0, ids(0), probabilities(rows=1))
    assert store.take_lost_mass() is None


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


@pytest.mark.parametrize("kind", KINDS)
def test_replayed_changes_give_an_identical_store(kind: str) -> None:
    store, replayed = store_of(**KINDS[kind]), store_of(**KINDS[kind])
    pieces = []
    for number, _ in enumerate(fill(store, steps=20)):
        if number % 3 == 0:
            store.publish(0, 2)
            pieces.append(store.changes())
            replayed.load(pieces[-1])
            assert identical(everything(store), everything(replayed))
    pieces.append(store.changes())
    assert all(piece["rows"].tolist() == sorted(set(piece["rows"].tolist())) for piece in pieces)
    assert all(tensor.is_contiguous() for piece in pieces for tensor in piece.values())
    merged, fresh = merge_changes(pieces), store_of(**KINDS[kind])
    assert merged["rows"].tolist() == sorted({row for piece in pieces for row in piece["rows"].tolist()})
    fresh.load(merged)
    assert identical(everything(store), everything(fresh)) and fresh.known == store.known
    # It also goes on like the one that was never saved.
    for _ in zip(fill(store, "on", steps=5), fill(fresh, "on", steps=5), strict=True):
        pass
    assert identical(everything(store), everything(fresh))


@pytest.mark.parametrize("kind", KINDS)
def test_changes_are_copies_and_empty_when_nothing_changed(kind: str) -> None:
    store = store_of(**KINDS[kind])
    list(fill(store, steps=3))
    changes = store.changes()
    again = store.changes()
    assert again.keys() == changes.keys()
    for name, tensor in again.items():
        assert len(tensor) == 0 and tensor.dtype == changes[name].dtype
        assert tensor.shape[1:] == changes[name].shape[1:]
    before = everything(store)
    changes["values"].zero_()
    assert identical(everything(store), before)
    other = store_of(**KINDS[kind])
    other.load(again)
    assert other.known == 0


def test_loaded_rows_do_not_count_as_changed() -> None:
    store, other = store_of(), store_of()
    store.remember(0, ids(1, 2), probabilities(rows=2))
    other.remember(0, ids(2, 3), probabilities("other", rows=2))
    other.load(store.changes())
    assert other.changes()["rows"].tolist() == [3]


def test_later_pieces_win() -> None:
    def piece(rows: list[int], value: float) -> dict[str, Tensor]:
        return {"rows": torch.tensor(rows), "values": torch.full((len(rows), 2), value, dtype=torch.float16)}

    merged = merge_changes([piece([1, 5, 9], 1.0), piece([], 2.0), piece([0, 5], 3.0), piece([9], 4.0)])
    assert merged["rows"].tolist() == [0, 1, 5, 9]
    assert merged["values"][:, 0].tolist() == [3.0, 1.0, 3.0, 4.0]
    assert merged["values"].dtype == torch.float16


def one_row(**changed: Tensor) -> dict[str, Tensor]:
    row = {
        "rows": torch.tensor([3]),
        "classes": torch.tensor([[1, 4]], dtype=torch.int16),
        "values": torch.tensor([[0.5, 0.25]], dtype=torch.float16),
    }
    return row | changed


def half(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float16)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": torch.tensor([3])}, "classes"),
        (one_row(rows=torch.tensor(3)), "rows"),
        (one_row(rows=torch.tensor([3], dtype=torch.int32)), "torch.int32"),
        (one_row(rows=torch.tensor([36])), "from 0 to 35"),
        (one_row(rows=torch.tensor([-1])), "from -1"),
        (one_row(values=torch.tensor([[0.5, 0.25]])), "torch.float32"),
        (one_row(values=half(0.5, 0.25, 0.25)), r"\[1, 3\]"),
        (one_row(values=half(0.5, -0.25)), "-0.25"),
        (one_row(values=half(0.5, 0.75)), "1.25"),
        (one_row(values=half(0.5, torch.nan)), "finite"),
        (one_row(classes=torch.tensor([[1, 6]], dtype=torch.int16)), "1 to 6"),
        (one_row(classes=torch.tensor([[-1, 1]], dtype=torch.int16)), "-1 to 1"),
        (one_row(classes=torch.tensor([[1, 1]], dtype=torch.int16)), "twice"),
        ({name: torch.cat([tensor, tensor]) for name, tensor in one_row().items()}, "ascending"),
    ],
)
def test_rows_of_another_store_are_refused(changes: dict[str, Tensor], words: str) -> None:
    store = store_of(top_k=2)
    store.load(one_row())
    before = everything(store)
    with pytest.raises(RunError, match=words):
        store.load(changes)
    assert identical(everything(store), before)


def test_rows_that_are_no_probabilities_are_refused_and_may_be_logits() -> None:
    changes = {"rows": torch.tensor([3]), "values": torch.zeros(1, CLASSES, dtype=torch.float16)}
    with pytest.raises(RunError, match="sum of 1"):
        store_of().load(changes)
    store_of(content="logits").load(changes)


@pytest.mark.parametrize("top_k", [0, CLASSES])
def test_top_k_has_to_leave_something_out(top_k: int) -> None:
    with pytest.raises(RecipeError, match=f"method.top_k={top_k}.*1 to {CLASSES - 1}"):
        store_of(top_k=top_k)


def test_top_k_of_logits_is_refused() -> None:
    with pytest.raises(RecipeError, match="method.top_k=2"):
        store_of(top_k=2, content="logits")


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

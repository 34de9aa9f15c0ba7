"""Do the changes of a knowledge store give an identical store after a checkpoint, and are others refused?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.errors import RunError
from engine.knowledge import merge_changes
from tests.knowledge.stores import CLASSES, KINDS, everything, fill, identical, ids, probabilities, store_of


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

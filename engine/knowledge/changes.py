"""Changes of the knowledge store for checkpoints: rows that changed, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import RunError

ROWS = "rows"
BLOCK = 1 << 14
"""Rows that are checked or copied at once, so that no second store comes to be in memory."""

_ROUNDING = 1e-2
"""How far the sum of a row in float16 may be from 1; many times what rounding explains."""


def merge_changes(pieces: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return one piece with the effect of all: of a row that several hold, the last one counts.

    Args:
        pieces: at least one, from ``KnowledgeStore.changes`` of one store or of stores like it, oldest first.

    Returns:
        as ``KnowledgeStore.changes``: rows ascending, each once.
    """
    assert pieces, "there are no pieces to merge"
    sizes = torch.tensor([len(piece[ROWS]) for piece in pieces])
    rows = torch.cat([piece[ROWS] for piece in pieces])
    # A stable sort leaves equal rows in the order of their pieces.
    ordered, positions = rows.sort(stable=True)
    last = torch.ones(len(rows), dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    merged, positions = ordered[last], positions[last]
    result = {name: piece.new_empty((len(merged), *piece.shape[1:])) for name, piece in pieces[0].items()}
    result[ROWS] = merged
    # Piece by piece rather than joined first: the values may fill half of the memory.
    starts = sizes.cumsum(0) - sizes
    for piece, start, size in zip(pieces, starts.tolist(), sizes.tolist(), strict=True):
        (own,) = torch.nonzero((positions >= start) & (positions < start + size), as_tuple=True)
        for name in result.keys() - {ROWS}:
            result[name][own] = piece[name][positions[own] - start]
    return result


def check_changes(
    changes: Mapping[str, Tensor], like: Mapping[str, Tensor], num_rows: int, num_classes: int, probabilities: bool
) -> None:
    """Refuse rows that are no rows of a store.

    Args:
        changes: what is to be loaded.
        like: empty rows of the store, ``[0, ...]``: their names, dtypes and widths are expected.
        num_rows: images times groups of the store.
        num_classes: of the store.
        probabilities: whether values have to be non-negative, with a sum of about 1 or, of the largest ones, of at most
            about 1.

    Raises:
        RunError: names, dtypes, shapes, rows, classes or values are others than expected.
    """
    if changes.keys() != like.keys():
        _refuse(f"holds {sorted(changes)}", f"{sorted(like)}")
    length = len(changes[ROWS]) if changes[ROWS].dim() else 0
    for name, expected in like.items():
        shape = (length, *expected.shape[1:])
        if changes[name].shape != shape or changes[name].dtype != expected.dtype:
            _refuse(f"{name!r} is {changes[name].dtype} {list(changes[name].shape)}", f"{expected.dtype} {list(shape)}")
    if not length:
        return
    rows = changes[ROWS]
    if int(rows.min()) < 0 or int(rows.max()) >= num_rows or not bool((rows[1:] > rows[:-1]).all()):
        _refuse(f"'rows' go from {int(rows.min())} to {int(rows.max())}", f"ascending ones from 0 to {num_rows - 1}")
    for start in range(0, length, BLOCK):
        values = changes["values"][start : start + BLOCK].float()
        if not bool(values.isfinite().all()):
            _refuse("'values' are not all finite", "finite ones")
        if probabilities:
            _check_probabilities(values, least=0.0 if "classes" in changes else 1 - _ROUNDING)
        if "classes" in changes:
            _check_classes(changes["classes"][start : start + BLOCK], num_classes)


def _check_probabilities(values: Tensor, least: float) -> None:
    low, sums = float(values.min()), values.sum(dim=1)
    if low < 0 or float(sums.min()) < least or float(sums.max()) > 1 + _ROUNDING:
        _refuse(
            f"'values' go from {low:.3g}, with sums from {float(sums.min()):.4g} to {float(sums.max()):.4g}",
            "probabilities: non-negative, with a sum of 1",
        )


def _check_classes(classes: Tensor, num_classes: int) -> None:
    ordered = classes.sort(dim=1).values
    low, high = int(ordered[:, 0].min()), int(ordered[:, -1].max())
    if low < 0 or high >= num_classes:
        _refuse(f"'classes' go from {low} to {high}", f"0 to {num_classes - 1}")
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        _refuse("'classes' name one twice in a row", "different ones")


def _refuse(found: str, expected: str) -> None:
    raise RunError(
        f"the checkpoint's knowledge: {found}; expected {expected}. It is damaged, or of other images, classes, groups "
        "or method.top_k: take another checkpoint, or the recipe that it was written with"
    )

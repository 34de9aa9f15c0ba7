"""Completeness of what was read: file sizes, counts, label ranges and class balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.errors import DataError


def check_file_size(path: Path, expected: int, at_least: bool = False) -> None:
    """Refuse a file of another size than expected (bytes). Raises DataError."""
    found = path.stat().st_size
    if found < expected:
        wanted = f"at least {expected:,}" if at_least else f"{expected:,}"
        raise DataError(f"{path} has {found:,} bytes, expected {wanted}: the copy is incomplete; fetch the file again")
    if found > expected and not at_least:
        raise DataError(f"{path} has {found:,} bytes, expected {expected:,}: this is another file; fetch it again")


def check_labels(where: str, labels: np.ndarray, num_classes: int) -> None:
    """Refuse labels outside 0 to C - 1. Raises DataError."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{where}: image {wrong[0]} has label {labels[wrong[0]]}, expected 0 to {num_classes - 1} "
            f"({len(wrong):,} labels are out of range); the file is damaged or belongs to another data "
            "set; correct it, or fetch it again"
        )


def check_count(where: str, labels: np.ndarray, expected: int) -> None:
    """Refuse a split of another size than the published one. Raises DataError."""
    if len(labels) != expected:
        raise DataError(
            f"{where}: found {len(labels):,} images, expected {expected:,}; the copy is incomplete or another set; "
            "fetch it again (a set of your own is read with data.name=folder or data.name=parquet)"
        )


def check_balance(where: str, labels: np.ndarray, num_classes: int) -> None:
    """Refuse classes of unequal size in a set that is balanced by construction. Raises DataError."""
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() != counts.max():
        raise DataError(
            f"{where}: found {counts.min():,} to {counts.max():,} images per class, expected "
            f"{len(labels) // num_classes:,} in each; the labels are damaged or belong to another set; "
            "fetch it again"
        )


def missing_set(name: str, root: Path, layouts: list[str], downloadable: bool) -> DataError:
    """Return the error for a folder that holds none of the layouts that are understood."""
    state = "does not exist" if not root.exists() else "is not a folder" if not root.is_dir() else "holds none of them"
    remedy = " or set data.download=true" if downloadable else ""
    return DataError(
        f"no {name} below data.root={root}: expected {'; or '.join(layouts)}, but {root.absolute()} {state}. "
        f"Correct data.root{remedy}"
    )

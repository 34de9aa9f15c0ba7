"""Which data sets are in a folder?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from engine.cli.check import Check
from engine.data.cifar import find_cifar
from engine.data.folder import find_folder
from engine.data.parquet import find_parquet
from engine.data.parts import Found
from engine.data.stl10 import find_stl10
from engine.data.svhn import find_svhn
from engine.errors import DataError

_PUBLISHED: dict[str, Callable[[Path, bool], Found | None]] = {
    "cifar10": functools.partial(find_cifar, "cifar10"),
    "cifar100": functools.partial(find_cifar, "cifar100"),
    "svhn": find_svhn,
    "stl10": find_stl10,
}
_OWN: dict[str, Callable[[Path], Found]] = {
    "folder": find_folder,
    "parquet": lambda root: find_parquet(root, None),
}


def data_checks(root: Path) -> list[Check]:
    """Return what every reader says to a folder: what it recognises, or why it cannot use what is there."""
    if not root.is_dir():
        return [Check("warning", "data", f"{root} is no folder", "give the folder that data.root shall be")]
    checks: list[Check] = []
    for name, find in _PUBLISHED.items():
        try:
            found = find(root, True)
            if found is not None:
                checks.append(_recognised(name, root, found))
        except DataError as error:
            checks.append(Check("warning", f"data {name}", str(error), "complete the files, or load the set anew"))
    refused: list[str] = []
    for name, find_own in _OWN.items():
        try:
            checks.append(_recognised(name, root, find_own(root)))
        except DataError as error:
            refused.append(f"{name}: {error}")
    if not checks:
        text = "; ".join(refused)
        checks.append(Check("warning", "data", f"nothing is recognised in {root}", f"as {text}"))
    return checks


def _recognised(name: str, root: Path, found: Found) -> Check:
    loaded = found.load()
    sizes = ", ".join(f"{len(part.labels):,} {split}" for split, part in loaded.parts.items())
    return Check(
        "ok", f"data {name}", f"{sizes}, {len(loaded.class_names):,} classes; data.name={name} data.root={root}"
    )

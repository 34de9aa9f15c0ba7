"""Checks of `local-learning doctor`: the data sets in a folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from engine.cli.check import Check
from engine.data.inventory import take_inventory, take_pixel_inventory
from engine.data.parts import Found
from engine.data.readers.boundary import is_folder, naming_files
from engine.data.readers.cifar import find_cifar
from engine.data.readers.cityscapes import find_cityscapes
from engine.data.readers.folder import find_folder
from engine.data.readers.identity_table import find_identities
from engine.data.readers.label_map_folder import IMAGES, find_label_maps
from engine.data.readers.market1501 import find_market1501
from engine.data.readers.parquet import find_parquet
from engine.data.readers.stl10 import find_stl10
from engine.data.readers.svhn import find_svhn
from engine.errors import DataError
from engine.paths import absolute

_PUBLISHED: dict[str, Callable[[Path], Found | None]] = {
    "cifar10": lambda root: find_cifar("cifar10", root, True),
    "cifar100": lambda root: find_cifar("cifar100", root, True),
    "svhn": lambda root: find_svhn(root, True),
    "stl10": lambda root: find_stl10(root, True),
    "cityscapes": lambda root: find_cityscapes(root, True) if is_folder(root / "leftImg8bit") else None,
    "market1501": find_market1501,
}
_OWN: dict[str, Callable[[Path], Found | None]] = {
    "folder": find_folder,
    "parquet": lambda root: find_parquet(root),
    "label_maps": lambda root: find_label_maps(root, None) if is_folder(root / IMAGES / "train") else None,
    "identities": lambda root: find_identities(root),
}


def data_checks(root: Path) -> list[Check]:
    """Return what every reader says to a folder: what it recognises, or why it cannot use what is there.

    Raises:
        DataError: `root` is no path.
    """
    place = absolute(root, "--data-root", DataError)
    try:
        with naming_files(place):
            there = is_folder(place)
            if there:
                os.scandir(place).close()
    except DataError as error:
        return [Check("warning", "data", str(error), "change its mode or owner, or give another folder")]
    if not there:
        return [Check("warning", "data", f"{root} is no folder", "give the folder that data.root shall be")]
    published = [check for name, find in _PUBLISHED.items() if (check := _try(name, root, find))]
    own = [check for name, find in _OWN.items() if (check := _try(name, root, find))]
    recognised = [check for check in own if check.status == "ok"]
    # What these say to a folder that is not theirs matters only if it is nobody's.
    return published + recognised or own


def _try(name: str, root: Path, find: Callable[[Path], Found | None]) -> Check | None:
    try:
        place = absolute(root, "--data-root", DataError)
        # Some look for a file before they begin to find anything.
        with naming_files(place):
            found = find(place)
        if found is None:
            return None
        loaded = found.load()
    except DataError as error:
        return Check("warning", f"data {name}", str(error), f"correct this to train with data.name={name}")
    labels = {split: part.labels for split, part in loaded.parts.items()}
    if found.label_maps:
        numbers = {split: len(each) for split, each in labels.items()}
        inventory = take_pixel_inventory(found.survey, loaded.class_names, numbers, {})
    else:
        inventory = take_inventory(found.survey, loaded.class_names, labels)
    sizes = ", ".join(f"{len(part.labels):,} {split}" for split, part in loaded.parts.items())
    kind = "identities to train on" if found.survey.kind == "identity" else "classes"
    where = f"data.name={name} data.root={shlex.quote(str(root))}"
    summary = f"{sizes}, {len(loaded.class_names):,} {kind}; {where}"
    return Check("ok", f"data {name}", "\n           ".join([summary, *inventory.lines()]))

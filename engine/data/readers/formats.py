"""Finds the files of a data set: each name of a set stands for a format, and each format has a reader of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from engine.data.parts import Found, Progress
from engine.data.readers.boundary import naming_files
from engine.data.readers.cifar import find_cifar, missing_cifar
from engine.data.readers.cityscapes import find_cityscapes
from engine.data.readers.folder import find_folder
from engine.data.readers.identity_table import find_identities
from engine.data.readers.label_map_folder import find_label_maps
from engine.data.readers.market1501 import find_market1501, missing_market1501
from engine.data.readers.parquet import find_parquet
from engine.data.readers.stl10 import find_stl10, missing_stl10
from engine.data.readers.svhn import find_svhn, missing_svhn
from engine.data.remote.copies import fetched
from engine.data.remote.download import download
from engine.data.remote.uris import is_uri, without_secret
from engine.errors import DataError, NoFolderGiven, RecipeError
from engine.paths import absolute
from engine.recipes.data import Data


def find_files(data: Data, strict: bool, progress: Progress) -> Found:
    """Return the files of a recipe's data set; those below a URI are fetched, and others downloaded if it says so.

    Args:
        data: the recipe's part about data, of a set that is read from files.
        strict: refuse published sets with another number of images than was published.
        progress: told how much is fetched.

    Raises:
        RecipeError: fields that do not go together; `NoFolderGiven` if there is no folder.
        DataError: files are missing, incomplete or damaged, or can be read in several ways.
    """
    if data.root is None:
        raise NoFolderGiven(f"data.root is missing: {data.name} is read from a folder; give it as data.root=DIR")
    if not is_uri(data.root):
        folder = absolute(data.root, "data.root", DataError)
        with naming_files(folder):
            return _find_below(folder, data, strict)
    if data.download:
        raise RecipeError(
            f"data.download=true puts files into a folder, found data.root={without_secret(data.root)}: give a folder, "
            "or set data.download=false"
        )
    root = fetched(data.root, progress)
    try:
        return _find_below(root, data, strict)
    except DataError as error:
        where = without_secret(data.root)
        raise DataError(f"{error}. {root} is a copy of data.root={where}: mend it there") from error


def _find_below(root: Path, data: Data, strict: bool) -> Found:
    if data.name == "folder":
        return find_folder(root)
    if data.name == "parquet":
        return find_parquet(root, data.image_column, data.label_column)
    if data.name == "label_maps":
        return find_label_maps(root, data.class_names)
    if data.name == "cityscapes":
        return find_cityscapes(root, strict)
    if data.name == "identities":
        return find_identities(root, data.label_column, data.image_column)
    finders: dict[str, tuple[Callable[[Path, bool], Found | None], Callable[[Path], DataError]]] = {
        "cifar10": (functools.partial(find_cifar, "cifar10"), functools.partial(missing_cifar, "cifar10")),
        "cifar100": (functools.partial(find_cifar, "cifar100"), functools.partial(missing_cifar, "cifar100")),
        "svhn": (find_svhn, missing_svhn),
        "stl10": (find_stl10, missing_stl10),
        "market1501": (lambda root, strict: find_market1501(root), missing_market1501),
    }
    find, missing = finders[data.name]
    found = find(root, strict)
    if found is None and data.download:
        download(data.name, root)
        found = find(root, strict)
    if found is None:
        raise missing(root)
    return found

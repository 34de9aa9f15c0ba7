"""Class names: those of the published sets, in label order, and those that folders and lists name; order of names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_STL10 = "airplane bird car cat deer dog horse monkey ship truck"

CIFAR10 = tuple(_CIFAR10.split())
CIFAR100 = tuple(_CIFAR100.split())
STL10 = tuple(_STL10.split())
SVHN = tuple("0123456789")

_LONGEST_SHOWN = 60


def readable(name: str) -> str:
    """Return a name as text in Unicode's normal form C, so that names of folders, lists and tables can be compared.

    Bytes that are no UTF-8, as Python keeps them in file names, are read as Latin-1.

    Raises:
        UnicodeEncodeError: it holds half of a character.
    """
    if name.isascii():
        return name
    stored = name.encode("utf-8", "surrogateescape")
    try:
        text = stored.decode("utf-8")
    except UnicodeDecodeError:
        text = stored.decode("latin-1")
    return unicodedata.normalize("NFC", text)


def byte_order(*names: str) -> tuple[bytes, bytes]:
    """Return what names of files and folders, or the parts of one path, are sorted by.

    It is the bytes of what `readable` gives, so that copies of a set whose names have another normal form have one
    order. Names that are one and the same text are sorted by their own bytes.

    Raises:
        UnicodeEncodeError: one holds half of a character.
    """
    return "/".join(map(readable, names)).encode(), os.fsencode("/".join(names))


def printable(name: str, longest: int | None = _LONGEST_SHOWN) -> str:
    """Return a name as one line that can be printed: odd characters are escaped, long ones cut (None: never)."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in name
    )
    return shown if longest is None or len(shown) <= longest else f"{shown[: longest - 3]}..."


def look_alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that differ in capitals or outer spaces only, if there are any."""
    seen: dict[str, str] = {}
    for name in names:
        same = readable(name).casefold().strip()
        if same in seen:
            return seen[same], name
        seen[same] = name
    return None

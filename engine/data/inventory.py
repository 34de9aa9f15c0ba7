"""The inventory of a set that was opened: what of it is used, what is not, and where its classes' names come from.

Nothing is picked or dropped in silence: what a reader saw is kept in a `Survey`, and an `Inventory` adds the counts.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from engine.data.appearances import is_packed, unpacked
from engine.data.class_names import printable

_MOST_EXAMPLES = 3
_MOST_NAMES = 10
_KINDS = {"class": "classes", "identity": "identities"}


@dataclass(frozen=True)
class LeftOut:
    """Files or folders that are there, and are not used."""

    reason: str
    """What they are."""

    number: int
    """How many there are."""

    examples: tuple[str, ...]
    """Some of them, relative to the root."""


@dataclass(frozen=True)
class Survey:
    """What a reader saw of a set, before any label is read."""

    layout: str
    """How the files are laid out, in words."""

    names_from: str
    """Where the names of the classes come from, in words."""

    root: str | None = None
    """Folder that is read; None for images that are made or come with the engine."""

    sources: dict[str, str] = field(default_factory=dict)
    """By split, the folder or the files that hold it, relative to the root."""

    columns: dict[str, str] = field(default_factory=dict)
    """By what they are used for (``image``, ``label``), the columns that are read."""

    passed_over: tuple[str, ...] = ()
    """Columns that are not read."""

    left_out: tuple[LeftOut, ...] = ()
    """Files and folders that are not used, by reason."""

    notes: tuple[str, ...] = ()
    """What else was decided about this set, a sentence each."""

    kind: Literal["class", "identity"] = "class"
    """What its labels are."""


AS_PUBLISHED = Survey(layout="the published files", names_from="as published")


@dataclass(frozen=True)
class Inventory:
    """What was found of a whole set, before any subset is drawn."""

    survey: Survey
    class_names: tuple[str, ...]
    """In label order."""

    pictures: dict[str, tuple[int, ...]]
    """By split, the pictures of each class in label order; of identities that are no classes, of each that is there;
    of label maps, the number of pictures."""

    pixels: dict[str, tuple[int, ...]] | None = None
    """By split, the pixels of each class in label order, and last those without a class; None without label maps, and
    empty where these have not been read."""

    def with_notes(self, notes: Iterable[str]) -> Inventory:
        """Return the same with what was found later, a sentence each."""
        return dataclasses.replace(
            self, survey=dataclasses.replace(self.survey, notes=(*self.survey.notes, *dict.fromkeys(notes)))
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, ready for JSON."""
        found = {
            **dataclasses.asdict(self.survey),
            "class_names": list(self.class_names),
            "pictures": {
                split: {"all": sum(counts), "of_each_class": list(counts)} for split, counts in self.pictures.items()
            },
        }
        if self.pixels is not None:
            found["pictures"] = {split: {"all": sum(counts)} for split, counts in self.pictures.items()}
            found["pixels"] = {
                split: {"of_each_class": list(counts[:-1]), "without_a_class": counts[-1]}
                for split, counts in self.pixels.items()
            }
        return found

    def lines(self) -> list[str]:
        """Return the same in words, a few lines for people."""
        survey = self.survey
        found = [f"data: {survey.layout}" + (f" in {printable(survey.root, None)}" if survey.root else "")]
        for split, counts in self.pictures.items():
            source = f" from {printable(survey.sources[split], None)}" if split in survey.sources else ""
            shares = f", {_shares(counts, survey.kind)}"
            if self.pixels is not None:
                shares = f", {_shares_of_pixels(self.pixels[split])}" if split in self.pixels else ""
            found.append(f"  {split}{source}: {sum(counts):,} pictures{shares}")
        found.append(
            f"  {len(self.class_names):,} {_KINDS[survey.kind]}, {survey.names_from}: {_names(self.class_names)}"
        )
        if survey.columns:
            used = ", ".join(f"{printable(column)} ({use})" for use, column in survey.columns.items())
            unused = ", ".join(map(printable, survey.passed_over))
            found.append(f"  columns read: {used}" + (f"; not read: {unused}" if unused else ""))
        found += [f"  not used: {_left_out(left)}" for left in survey.left_out]
        return found + [f"  {note}" for note in survey.notes]


def take_inventory(survey: Survey, class_names: tuple[str, ...], labels: dict[str, np.ndarray]) -> Inventory:
    """Return a survey with the counts.

    Args:
        survey: what the reader saw.
        class_names: names in label order, C of them.
        labels: by split, int64 [N], 0 to C - 1.
    """
    return Inventory(
        survey=survey,
        class_names=class_names,
        pictures={split: _counts(found, len(class_names)) for split, found in labels.items()},
    )


def take_pixel_inventory(
    survey: Survey, class_names: tuple[str, ...], pictures: dict[str, int], values: dict[str, tuple[int, ...]]
) -> Inventory:
    """Return a survey with the counts of pictures and of the pixels of their label maps.

    Args:
        survey: what the reader saw.
        class_names: names in label order, C of them.
        pictures: by split, how many there are.
        values: by split, how many pixels hold each value 0 to 255.
    """
    return Inventory(
        survey=survey,
        class_names=class_names,
        pictures={split: (number,) for split, number in pictures.items()},
        pixels={split: (*counts[: len(class_names)], counts[-1]) for split, counts in values.items()},
    )


def _counts(labels: np.ndarray, num_classes: int) -> tuple[int, ...]:
    if is_packed(labels):
        return tuple(np.unique(unpacked(labels).identities, return_counts=True)[1].tolist())
    return tuple(np.bincount(labels, minlength=num_classes).tolist())


class Leavings:
    """Gathers what is left out, by reason."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.fspath(root)
        self._found: dict[str, list[str]] = {}
        self._numbers: dict[str, int] = {}

    def add(self, reason: str, path: str | os.PathLike[str], number: int = 1) -> None:
        """Count one path, which stands for `number` of them."""
        self._numbers[reason] = self._numbers.get(reason, 0) + number
        examples = self._found.setdefault(reason, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append(os.path.relpath(path, self._root))

    def all(self) -> tuple[LeftOut, ...]:
        """Return what was counted, in the order of its first appearance."""
        return tuple(
            LeftOut(reason, self._numbers[reason], tuple(examples)) for reason, examples in self._found.items()
        )


def _shares(counts: tuple[int, ...], kind: str) -> str:
    smallest, largest = min(counts, default=0), max(counts, default=0)
    return f"{smallest:,} in each {kind}" if smallest == largest else f"{smallest:,} to {largest:,} in a {kind}"


def _shares_of_pixels(counts: tuple[int, ...]) -> str:
    *classes, without = counts
    total = max(1, sum(counts))
    absent = sum(not count for count in classes)
    shares = f"{min(classes) / total:.2%} to {max(classes) / total:.1%} of the pixels in a class"
    return f"{shares}, {without / total:.1%} in none" + (f"; {absent} classes have no pixel" if absent else "")


def _names(names: tuple[str, ...]) -> str:
    more = f", and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(printable, names[:_MOST_NAMES])) + more


def _left_out(left: LeftOut) -> str:
    more = ", ..." if left.number > len(left.examples) else ""
    return f"{left.number:,} {left.reason} ({', '.join(map(printable, left.examples))}{more})"

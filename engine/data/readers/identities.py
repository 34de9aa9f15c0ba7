"""Sets of identities as readers hand them over: classes to train on, appearances to look for; checked together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.appearances import (
    FURTHER,
    GALLERY,
    JUNK,
    MOST_CAMERAS,
    MOST_IDENTITIES,
    QUERY,
    UNKNOWN_CAMERA,
    Appearances,
    packed,
)
from engine.data.class_names import printable
from engine.errors import DataError

Value = int | str

JUNK_WORD = str(JUNK)
"""Junk in a column of text."""

_MOST_NAMED = 5


@dataclass(frozen=True)
class Seen:
    """What is known of pictures, in their order.

    Attributes:
        identities: of each; all numbers or all text.
        cameras: of each, or None where they are not known.
        roles: what each is for, sums of `QUERY`, `GALLERY` and `FURTHER`.
    """

    identities: Sequence[Value]
    cameras: Sequence[Value] | None
    roles: Sequence[int]


@dataclass(frozen=True)
class Labelled:
    """Labels of both splits.

    Attributes:
        class_names: the training identities in order.
        train: int64 [N], classes.
        test: int64 [M], packed appearances.
        notes: what was found, a sentence each.
    """

    class_names: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...]


def label(
    place: str, training: Sequence[Value], tested: Seen, distractors: Collection[Value] = (), remedy: str = ""
) -> Labelled:
    """Return the labels of pictures of known identities.

    Numbers stay what they are; text is put into order and numbered. As a number or as text, a test identity of -1 is
    junk, and a camera of -1 one that is not known.

    Args:
        place: the set, for messages.
        training: the identity of each training picture.
        tested: all others.
        distractors: identities that are nobody's, only counted here.
        remedy: what else can be done about identities of both sides, from a comma on.

    Raises:
        DataError: an identity is trained on and tested with, no query can be found again, or junk is trained on or
            looked for.
    """
    classes = sorted(set(training))
    numbers = {identity: number for number, identity in enumerate(classes)}
    identities = _numbered(place, "identities", tested.identities, MOST_IDENTITIES, 0, JUNK_WORD)
    roles = np.asarray(tested.roles, dtype=np.int64)
    _check_junk(place, training, identities, roles)
    both = sorted(set(tested.identities) & set(classes))
    if both:
        raise DataError(
            f"{place}: {_named(both)}: in the training set and among query or gallery, but retrieval is tested with "
            f"identities that were never trained on; move the pictures of each to one side{remedy}"
        )
    unknown = np.full(len(roles), UNKNOWN_CAMERA, dtype=np.int64)
    if tested.cameras is not None:
        unknown = _numbered(place, "cameras", tested.cameras, MOST_CAMERAS, 1, str(UNKNOWN_CAMERA))
    appearances = Appearances(identities, unknown, roles)
    notes = [*_counts(appearances, tested.identities, distractors), *_unmatched(place, appearances, tested.identities)]
    return Labelled(
        tuple(map(str, classes)),
        np.array([numbers[identity] for identity in training], dtype=np.int64),
        packed(appearances),
        tuple(notes),
    )


def _numbered(
    place: str, what: str, values: Sequence[Value], limit: int, first: int, apart: str | None = None
) -> np.ndarray:
    """Return numbers int64 [N]: the values themselves, or of text the places in its order, from ``first`` on.

    Text that is set ``apart`` gets the number -1.
    """
    if all(isinstance(value, int) for value in values):
        smallest, largest = min(values, default=0), max(values, default=0)
        assert isinstance(smallest, int)
        assert isinstance(largest, int)
        if smallest < JUNK or largest >= limit:
            wrong = smallest if smallest < JUNK else largest
            raise DataError(
                f"{place}: found the number {wrong} among the {what}, expected {JUNK} to {limit - 1:,}; renumber them"
            )
        return np.array(values, dtype=np.int64)
    names = sorted(set(values) - {apart})
    places = {value: first + number for number, value in enumerate(names)}
    if first + len(places) > limit:
        raise DataError(f"{place}: found {len(places):,} {what}, expected at most {limit - first:,}")
    return np.array([places.get(value, JUNK) for value in values], dtype=np.int64)


def _check_junk(place: str, training: Sequence[Value], identities: np.ndarray, roles: np.ndarray) -> None:
    trained = sum(identity in (JUNK, JUNK_WORD) for identity in training)
    asked = int(((identities == JUNK) & (roles & (QUERY | FURTHER) > 0)).sum())
    if trained or asked:
        found = f"{trained:,} training pictures" if trained else f"{asked:,} queries"
        raise DataError(
            f"{place}: {found} have the identity {JUNK}, which is that of junk in the gallery: remove them, or correct "
            "their names"
        )


def _counts(appearances: Appearances, identities: Sequence[Value], distractors: Collection[Value]) -> list[str]:
    roles, junk = appearances.roles, appearances.identities == JUNK
    asked = roles & QUERY > 0
    found = [
        f"{int(asked.sum()):,} queries of {len(np.unique(appearances.identities[asked])):,} identities are looked for "
        f"in a gallery of {int(((roles & GALLERY > 0) & ~junk).sum()):,} pictures"
    ]
    nobody = sum(identity in distractors for identity in identities)
    if nobody:
        found.append(f"{nobody:,} pictures of the gallery are distractors, which count as wrong for every query")
    if junk.any():
        found.append(f"{int(junk.sum()):,} pictures of the gallery are junk, which no ranking holds")
    unknown = int((appearances.cameras == UNKNOWN_CAMERA).sum())
    if unknown == len(roles):
        found.append("cameras are not known, so that no picture but the query itself is taken out of its ranking")
    elif unknown:
        found.append(
            f"{unknown:,} pictures have the camera {UNKNOWN_CAMERA}, which means that it is not known: from the "
            "rankings of such queries nothing but the query itself is taken out"
        )
    return [*found, *_counts_of_further(appearances)]


def _counts_of_further(appearances: Appearances) -> list[str]:
    """Return notes about the pictures that are averaged for a query; none where there are no such pictures."""
    further = np.flatnonzero(appearances.roles & FURTHER > 0)
    if not len(further):
        return []
    queries = np.flatnonzero(appearances.roles & QUERY > 0)
    asked, given = (
        list(zip(appearances.identities[some].tolist(), appearances.cameras[some].tolist(), strict=True))
        for some in (queries, further)
    )
    pairs_asked, pairs_given = set(asked), set(given)
    alone = sum(pair not in pairs_given for pair in asked)
    unused = sum(pair not in pairs_asked for pair in given)
    found = [f"{len(given) - unused:,} further pictures of the queries are averaged for the scores of multi_query"]
    if alone:
        found.append(f"{alone:,} queries have no further picture by their camera, and stand for themselves there")
    if unused:
        found.append(f"{unused:,} further pictures show no query's identity by its camera, and have no influence")
    return found


def _unmatched(place: str, appearances: Appearances, names: Sequence[Value]) -> list[str]:
    """Return a note that counts the queries that cannot be found again; refuse a set where that are all."""
    identities, cameras, roles = appearances.identities, appearances.cameras, appearances.roles
    gallery = np.flatnonzero((roles & GALLERY > 0) & (identities != JUNK))
    seen: dict[int, tuple[int, set[int]]] = {}
    for identity, camera in zip(identities[gallery].tolist(), cameras[gallery].tolist(), strict=True):
        number, by = seen.get(identity, (0, set()))
        seen[identity] = (number + 1, by | {camera})
    lost = []
    queries = np.flatnonzero(roles & QUERY > 0)
    for query in queries.tolist():
        number, by = seen.get(int(identities[query]), (0, set()))
        camera = int(cameras[query])
        others = by - {camera} if camera != UNKNOWN_CAMERA else set()
        itself = int(roles[query] & GALLERY > 0)
        if not others and (camera != UNKNOWN_CAMERA or number <= itself):
            lost.append(query)
    if not lost:
        return []
    named = _named(sorted({names[query] for query in lost}))
    if len(lost) == len(queries):
        raise DataError(
            f"{place}: none of the {len(queries):,} queries has another picture of its identity in the gallery (of "
            f"another camera, where cameras are known): {named}; correct identities and cameras, or add such pictures"
        )
    return [f"{len(lost):,} queries have no match in the gallery and are not scored: {named}"]


def _named(identities: Sequence[Value]) -> str:
    more = f" and {len(identities) - _MOST_NAMED:,} more" if len(identities) > _MOST_NAMED else ""
    listed = ", ".join(printable(str(identity)) for identity in identities[:_MOST_NAMED])
    return f"the identities {listed}{more}" if len(identities) > 1 else f"the identity {listed}"

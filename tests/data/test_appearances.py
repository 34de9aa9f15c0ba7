"""Is an appearance that is packed into a label found again, and is a plain class looked for among all others?"""

from __future__ import annotations

import numpy as np

from engine.data.appearances import (
    GALLERY,
    JUNK,
    QUERY,
    UNKNOWN_CAMERA,
    Appearances,
    is_packed,
    notes_on_held_out,
    packed,
    unpacked,
)


def test_what_is_packed_is_found_again() -> None:
    given = Appearances(np.array([0, JUNK, 2**31 - 1]), np.array([UNKNOWN_CAMERA, 0, 2**16 - 2]), np.array([1, 2, 7]))
    labels = packed(given)
    found = unpacked(labels)
    assert labels.dtype == np.int64
    assert is_packed(labels)
    for field in ("identities", "cameras", "roles"):
        np.testing.assert_array_equal(getattr(found, field), getattr(given, field))


def test_classes_are_identities_that_are_looked_for_among_all_others() -> None:
    found = unpacked(np.array([3, 0, 3]))
    assert not is_packed(np.array([3, 0, 3]))
    assert found.identities.tolist() == [3, 0, 3]
    assert found.cameras.tolist() == [UNKNOWN_CAMERA] * 3
    assert found.roles.tolist() == [QUERY | GALLERY] * 3


def test_what_has_no_cameras_anyway_gets_no_note_on_those_held_out() -> None:
    every = np.array([1, 2])
    assert notes_on_held_out(packed(Appearances(every, every, every)))
    assert not notes_on_held_out(packed(Appearances(every, np.full(2, UNKNOWN_CAMERA), every)))
    assert not notes_on_held_out(every)

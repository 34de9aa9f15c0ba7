"""Findings of decoding: the pictures that cannot be used, and those that are transparent.

All pictures that cannot be used are named at once, so that one round of repairs is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from engine.data.entries import DamagedEntry
from engine.data.parts import Picture, Progress
from engine.data.pictures.picture_limits import PictureError, UnusablePicturesError
from engine.errors import DataError

_NAMED = 100


@dataclass
class Findings:
    """Collects what is found; not to be shared by threads."""

    transparent: int = 0
    """Pictures of which any part is transparent."""

    faults: list[PictureError] = field(default_factory=list)

    @contextmanager
    def noting(self, picture: Picture) -> Iterator[None]:
        """Note that a picture cannot be used, when the block says so."""
        try:
            yield
        except PictureError as error:
            # The error that was raised holds the picture's bytes, in the frames that it came through.
            self.faults.append(PictureError(error.where, error.cause, error.remedy))
        except DamagedEntry:
            # A copy is damaged and not the picture; it is made again.
            raise
        except DataError as error:
            remedy = f"make it readable, or {picture.remedy}"
            self.faults.append(PictureError(picture.where, f"cannot be read ({error})", remedy))

    def add(self, other: Findings) -> None:
        """Take in what was found elsewhere."""
        self.transparent += other.transparent
        self.faults.extend(other.faults)

    def refuse(self, number: int) -> None:
        """Raise one UnusablePicturesError that names the pictures that cannot be used, if there are any.

        Args:
            number: how many pictures there are in all.
        """
        if not self.faults:
            return
        if len(self.faults) == 1:
            raise self.faults[0]
        causes: dict[str, list[str]] = {}
        for fault in self.faults[:_NAMED]:
            causes.setdefault(fault.cause, []).append(fault.where)
        named = "; ".join(f"{', '.join(places)} {cause}" for cause, places in causes.items())
        more = len(self.faults) - _NAMED
        listed = named + (f"; and {more:,} more" if more > 0 else "")
        remedies = "; or ".join(dict.fromkeys(fault.remedy for fault in self.faults))
        raise UnusablePicturesError(
            f"{len(self.faults):,} of {number:,} pictures cannot be used: {listed}. For each: {remedies}"
        )

    def tell(self, progress: Progress) -> None:
        """Say how many pictures are transparent, if any are."""
        if self.transparent:
            progress(f"{self.transparent:,} pictures are transparent; white is put behind them", None)

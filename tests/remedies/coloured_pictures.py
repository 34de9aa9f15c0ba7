"""What do the tests of sets of identities share: pictures of one colour each."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def picture(path: Path, number: int) -> None:
    """Write a picture of 8 x 8 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(path)

"""Do threads that decode at the same time stay within what one picture may have?"""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from engine.data.parts import Picture
from engine.data.pictures import decoding
from engine.data.pictures.decoding import decoded
from engine.data.pictures.picture_limits import PIXELS_VARIABLE
from engine.data.pictures.pixel_budget import PixelBudget


def decode(picture: Picture) -> Image.Image:
    with decoded(picture) as (image, _):
        return image


def test_no_more_than_the_budget_is_in_at_once() -> None:
    budget, lock = PixelBudget(), threading.Lock()
    inside, highest = 0, 0

    def work(pixels: int) -> None:
        nonlocal inside, highest
        with budget.taken(pixels, 10):
            with lock:
                inside += min(pixels, 10)
                highest = max(highest, inside)
            threading.Event().wait(0.001)
            with lock:
                inside -= min(pixels, 10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 4, 7, 10, 25, 3] * 20))
    assert highest <= 10


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_waits_for_another_one(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(content, format=kind)
    picture = Picture("x", content.getvalue())
    monkeypatch.setenv(PIXELS_VARIABLE, "700")
    loaded = []
    monkeypatch.setattr(decoding, "_rgb", lambda image, rgb=decoding._rgb: loaded.append(image) or rgb(image))
    with ThreadPoolExecutor(1) as pool:
        with decoded(picture):
            second = pool.submit(decode, picture)
            threading.Event().wait(0.3)
            assert len(loaded) == 1
        assert second.result().size == (20, 20)
    assert len(loaded) == 2

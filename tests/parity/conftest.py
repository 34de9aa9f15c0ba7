"""What do the tests of parity share: runs without pictures."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png, which takes longer than the training."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)

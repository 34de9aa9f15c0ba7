"""What do the tests of tasks share: a cache of their own, and trainings that draw no curves."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)

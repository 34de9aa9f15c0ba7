"""What do the tests of the recipes share: one thread, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what tests store apart from the user's."""
    torch.set_num_threads(1)
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "cache"))

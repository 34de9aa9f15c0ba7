"""Does a process that trains again and again on private Rays keep nothing of them?"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import engine
from engine.recipes import Greedy, Recipe
from engine.runtimes.ray.private.folder import choose_temporary_folder


@pytest.mark.slow
def test_nothing_is_left_of_ten_trainings_in_one_process(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for one socket that Ray's own C++ keeps of each connection to a cluster."""
    recipe = tiny_recipe(method=Greedy(num_segments=2), epochs=1)
    of_others = set(psutil.Process().children(recursive=True))
    with tempfile.TemporaryDirectory(prefix="ten_") as parent:
        monkeypatch.setenv("TMPDIR", parent)
        assert str(choose_temporary_folder()) == parent
        counts = []
        for number in range(10):
            result = engine.train(recipe, engine.Plan(executor="ray"), tmp_path / str(number))
            assert result.status == "finished"
            assert set(psutil.Process().children(recursive=True)) <= of_others
            counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
        assert os.listdir(parent) == []
    descriptors, threads = zip(*counts, strict=True)
    # What Ray loads with the first ones stays.
    assert descriptors[9] - descriptors[2] <= 7, descriptors
    assert threads[9] <= threads[2], threads

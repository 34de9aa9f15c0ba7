"""What do the tests of searches share: a small search, its folder, the command of one, and trainings outside of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

import engine
from engine.recipes import Plan, Recipe, recipe_identity
from engine.search import Sweep
from engine.search.folder import SweepFolder
from tests.search.search_process import SEARCH, Alone

SPACE = {"epochs": tune.randint(1, 10), "data.root": tune.choice([None, "a,b", [1, True], ""])}


@pytest.fixture
def make_sweep(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Sweep]:
    """A function: changes of a search over the weight of InfoPro's reconstruction and its segments."""

    def make(**changes: Any) -> Sweep:
        fields: dict[str, Any] = {
            "name": "tiny",
            "recipe": tiny_recipe(data={"validation_fraction": 0.2}),
            "space": {
                "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
                "method.num_segments": tune.choice([1, 2, 3]),
            },
            **changes,
        }
        return Sweep(**fields)

    return make


@pytest.fixture
def assert_given_back() -> Callable[[int], None]:
    """A function: how many CPUs Ray has free again, for which it takes a moment."""

    def check(cpus: int) -> None:
        deadline = time.monotonic() + 30
        while ray.available_resources().get("CPU", 0) < cpus:
            assert time.monotonic() < deadline, ray.available_resources()
            time.sleep(0.1)

    return check


@pytest.fixture
def opened(make_sweep: Callable[..., Sweep], tmp_path: Path) -> Iterator[Callable[..., SweepFolder]]:
    """A function: opens the folder of a search, which may differ from the usual one in some fields."""
    folders: list[SweepFolder] = []

    def open_folder(resume: Any = "auto", path: Path | None = tmp_path / "s", **changes: Any) -> SweepFolder:
        sweep = make_sweep(**{"space": SPACE, **changes})
        folders.append(SweepFolder(sweep, sweep.base(), path, resume))
        return folders[-1]

    yield open_folder
    for folder in folders:
        # A test may have closed it.
        with contextlib.suppress(ValueError):
            folder.close()


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command that searches as SEARCH says; it is the same every time."""
    (tmp_path / "own.py").write_text(SEARCH)
    more = ["--run-dir", str(tmp_path / "s"), "--max-concurrent", "2", "--json"]
    return [sys.executable, "-m", "engine", "sweep", str(tmp_path / "own.py"), *more]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Train a trial's recipe outside of any search, once for all tests."""
    results: dict[str, engine.Result] = {}

    def train(recipe: engine.Recipe) -> engine.Result:
        identity = recipe_identity(recipe)
        if identity not in results:
            # Evaluations and checkpoints change no weight, and take most of the time of epochs as short as these.
            plan = Plan(
                executor="process", evaluate_test=False, evaluate_every_epochs=1000, checkpoint_every_steps=100_000
            )
            results[identity] = engine.train(recipe, plan, tmp_path_factory.mktemp("alone") / "run")
        return results[identity]

    return train

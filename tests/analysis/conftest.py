"""What do the tests of analyses share: tiny runs that are trained once, and copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.recipes import DGL, DML, DSL, Backbone, EndToEnd, InfoPro, Peer, Plan, Recipe
from tests.conftest import make_tiny_recipe

RECIPES: dict[str, dict[str, Any]] = {
    "end_to_end": {"method": EndToEnd()},
    "infopro": {"method": InfoPro(num_segments=3)},
    "dgl": {"method": DGL(num_segments=2)},
    "dml": {"method": DML(peers=(Peer(), Peer()))},
    "dsl": {"method": DSL()},
    "own": {"method": EndToEnd(), "backbone": Backbone(name=f"{Path(__file__).with_name('own_network.py')}:network")},
}


def tiny(name: str, **changes: Any) -> Recipe:
    return make_tiny_recipe(name=name, **{"epochs": 1, **RECIPES[name], **changes})


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function: the folder of a finished run, trained when it is first asked for; not to be changed."""
    folder, known = tmp_path_factory.mktemp("analysed"), dict[str, Path]()

    def trained(name: str) -> Path:
        if name not in known:
            known[name] = engine.train(tiny(name), Plan(executor="process"), folder / name).run_dir
        return known[name]

    return trained


@pytest.fixture
def run_of(trained_runs: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A function: a copy of a finished run that the test may change, called as it wants."""

    def copied(name: str, called: str | None = None) -> Path:
        return shutil.copytree(trained_runs(name), tmp_path / "runs" / (called or name))

    return copied

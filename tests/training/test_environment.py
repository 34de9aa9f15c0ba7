"""Does a run that goes on say what has changed around it since, and nothing where nothing has?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.recipes import Recipe

IN_PROCESS = engine.Plan(executor="process")
NETWORK = """
from torch import nn

def network(num_classes, image_shape):
    width = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU()), nn.Linear(8, num_classes))
"""


class Listener:
    """A console that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@pytest.fixture
def train(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., list[str]]:
    """A function: train a network of one's own in the same folder, and return what is said."""
    (tmp_path / "net.py").write_text(NETWORK)
    backbone = {"name": f"{tmp_path}/net.py:network", "widths": None}
    recipe = tiny_recipe(epochs=2, method={"kind": "end_to_end"}, backbone=backbone)

    def run(until_step: int | None = None) -> list[str]:
        console: Any = Listener()
        engine.train(recipe, IN_PROCESS, tmp_path / "run", console=console, until_step=until_step)
        return [line for line in console.said if "since" in line]

    return run


def test_a_file_of_ones_own_that_has_changed(train: Callable[..., list[str]], tmp_path: Path) -> None:
    assert train(1) == train(2) == []
    net = tmp_path / "net.py"
    net.write_text(NETWORK.replace("ReLU", "Tanh"))
    told = train()
    assert told == [
        f"since the run was left {net} (backbone.name) has changed: what comes now may differ from a run in one piece"
    ]
    assert told[0] in (tmp_path / "run" / "log.txt").read_text()
    assert train() == []
    net.write_text(NETWORK)
    assert [line.partition("; ")[2] for line in train()] == [
        f"--resume never starts a new run beside it; since then {net} (backbone.name) has changed"
    ]
    net.unlink()


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"processor": "an\x1b[31mother", "gpus": []}, r"processor was an\\x1b\[31mother and is "),
        ({"packages": {"torch": "2.9.1", "ray": None}}, r"left torch was 2\.9\.1 and is [\d.+a-z]+: "),
        ({"cores": 9000, "git_revision": "x", "own_files": 3, "packages": [], "engine": None}, None),
        ("{", r"environment\.json: .*what has changed since is not known"),
    ],
    ids=["processor", "torch", "nothing that counts", "damaged"],
)
def test_another_machine_or_other_versions(
    then: Any, said: str | None, train: Callable[..., list[str]], tmp_path: Path
) -> None:
    train(1)
    file = tmp_path / "run" / "environment.json"
    file.write_text(then if isinstance(then, str) else json.dumps({**json.loads(file.read_text()), **then}))
    told = train(2)
    assert len(told) == (said is not None)
    if said is not None:
        assert re.search(said, told[0])
    assert json.loads(file.read_text())["packages"]["torch"]

"""Does a run that goes on say what has changed around it since, and nothing where nothing has?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.recipes import Recipe
from engine.training import entry
from engine.training.session import Session

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
def recipe(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> Recipe:
    """A recipe with a network of one's own."""
    (tmp_path / "net.py").write_text(NETWORK)
    backbone = {"name": f"{tmp_path}/net.py:network", "widths": None}
    return tiny_recipe(epochs=2, method={"kind": "end_to_end"}, backbone=backbone)


@pytest.fixture
def train(recipe: Recipe, tmp_path: Path) -> Callable[..., list[str]]:
    """A function: train it in the same folder, and return what is said."""

    def run(until_step: int | None = None) -> list[str]:
        console: Any = Listener()
        engine.train(recipe, IN_PROCESS, tmp_path / "run", console=console, until_step=until_step)
        return [line for line in console.said if "since" in line]

    return run


def test_a_file_of_ones_own_that_has_changed(train: Callable[..., list[str]], tmp_path: Path) -> None:
    assert train(1) == train(2) == []
    net = tmp_path / "net.py"
    # What ends before it has trained leaves nothing that the next command would be compared with.
    net.write_text(NETWORK.replace("Linear(8,", "Linear(9,"))
    with pytest.raises(engine.RecipeError):
        train()
    net.write_text(NETWORK.replace("ReLU", "Tanh"))
    for _ in range(2):
        told = train(2)
        assert len(told) == 1
        assert (
            f"step-000002 was written {net} has changed: what comes now may differ from a run in one piece" in told[0]
        )
    assert told[0] in (tmp_path / "run" / "log.txt").read_text()
    train()
    assert train() == []
    net.write_text(NETWORK)
    assert [line.partition("; ")[2] for line in train()] == [
        f"--resume never starts a new run beside it; since then {net} has changed"
    ]
    net.unlink()
    assert train() == []


def test_a_team_is_not_started_again_from_a_newer_file(recipe: Recipe, tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    with Session(recipe, IN_PROCESS) as session:
        session.start()
        net.write_text(NETWORK.replace("ReLU", "Tanh"))
        with pytest.raises(engine.RecipeError, match=f"^{net}: is another file on .* than this run's learners"):
            session.start()
        net.write_text(NETWORK)
        assert session.start()


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"processor": "an\x1b[31mother", "cores": 9000}, r"processor was an\\x1b\[31mother and is "),
        ({"gpus": ["NVIDIA H200"] * 8}, r"gpus was 8 x NVIDIA H200 and is none: "),
        ({"packages": {"torch": "2.9.1", "ray": None}}, r"written torch was 2\.9\.1 and is [\d.+a-z]+: "),
        ({"git_revision": "x", "own_files": 3, "packages": [], "engine": None}, None),
        (None, None),
    ],
    ids=["processor", "GPUs", "torch", "nothing that counts", "an earlier version's"],
)
def test_another_machine_or_other_versions(
    then: Any, said: str | None, monkeypatch: pytest.MonkeyPatch, train: Callable[..., list[str]]
) -> None:
    describe = entry.describe_environment
    with monkeypatch.context() as before:
        before.setattr(entry, "describe_environment", lambda recipe: then and {**describe(recipe), **then})
        train(1)
    told = train(2)
    assert len(told) == (said is not None)
    assert said is None or re.search(said, told[0])

"""What do the tests of the command line share: a way to call it, and a finished run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine import Plan, apply_overrides, load_recipe, train
from engine.cli.main import main

TINY = ("epochs=1", "data.train_limit=100", "data.test_limit=100")


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Command = Callable[..., Answer]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Call the command line in an empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*words: str) -> Answer:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe, plan = apply_overrides(load_recipe("infopro_digits"), Plan(executor="process"), TINY)
    return train(recipe, plan, tmp_path_factory.mktemp("trained") / "run").run_dir


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """Return a finished run which the test may change."""
    return shutil.copytree(trained, tmp_path / "run")

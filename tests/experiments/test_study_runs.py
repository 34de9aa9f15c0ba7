"""Are the runs of a study believed only as far as they can be, and their rates chosen in words that hide no tie?"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import engine
from experiments.studies.training import Choice, Trained, Trainer, check_images
from tests.experiments.tiny_study import TINY


def test_rates_that_are_as_good_are_told() -> None:
    tie = Choice(0.1, {0.05: 0.7533, 0.1: 0.8042, 0.2: 0.8042})
    assert tie.as_good == (0.2,)
    assert tie.is_at_edge
    assert tie.words == "0.1, as good as 0.2, at the edge"
    assert Choice(0.1, {0.05: 0.7, 0.1: 0.8, 0.2: 0.75}).words == "0.1"
    assert Choice(0.1).as_good == (), "nothing was chosen"


def test_means_that_differ_by_rounding_alone_are_equal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 400 images each 316, 339 and 332, or 330, 325 and 332, are right: 987 of 1,200 either way."""
    counts = {0.05: (330, 325, 332), 1e30: (316, 339, 332)}

    def train(trainer: Trainer, trained: Trained, seed: int) -> None:
        pass

    def compared(trained: Trained) -> Any:
        right = counts[trained.choice.learning_rate or 0.0]
        return SimpleNamespace(validation_scores={seed: count / 400 for seed, count in enumerate(right)})

    monkeypatch.setattr(Trainer, "_train", train)
    monkeypatch.setattr(Trained, "compared", compared)
    (choice,) = Trainer(TINY, None, tmp_path).choose_rates(["plain"]).values()
    assert (choice.learning_rate, choice.as_good) == (0.05, (1e30,))


def test_arms_on_other_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, _ = TINY.job("plain", 3, None, None)
    prints = {"a": "x", "b": "y", "c": "x"}

    def load(run_dir: Path) -> Any:
        return SimpleNamespace(recipe=recipe, facts=SimpleNamespace(fingerprint=prints[run_dir.name]))

    monkeypatch.setattr("experiments.studies.training.engine.load", load)

    def arm(name: str) -> Trained:
        result: Any = SimpleNamespace(run_dir=Path("runs") / name)
        return Trained(name, Choice(None), {3: result})

    check_images([arm("a"), arm("c")])
    with pytest.raises(
        engine.RunError, match="runs/b: was trained on other images than runs/a, and both are of one seed"
    ):
        check_images([arm("a"), arm("b")])


@pytest.mark.slow
def test_what_is_wrong_with_a_finished_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, choices = Trainer(TINY, None, tmp_path), {"peers": Choice(0.1)}
    trained = trainer.train(choices, [3])["peers"]
    folder = trained.results[3].run_dir
    capsys.readouterr()
    assert trainer.train(choices, [3])["peers"].results == trained.results
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("peers, learning rate 0.1, seed 3: "), "nothing else is told of a run that is whole"
    shutil.rmtree(folder / "checkpoints")
    trainer.train(choices, [3])
    assert "could not be compared with its checkpoint, of which nothing whole is left" in capsys.readouterr().err
    (folder / "recipe.json").unlink()
    (folder / "summary.json").unlink()
    told = f"peers, learning rate 0.1, seed 3: .*; or move {folder} away, and the same command trains it anew"
    with pytest.raises(engine.RunError, match=told):
        trainer.train(choices, [3])

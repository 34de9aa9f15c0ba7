"""Does what a refused analysis tells its user to do work, word for word?"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import engine
from engine.analysis import Settings, analyse
from engine.cli.main import main
from engine.recipes import Plan
from tests.analysis.conftest import tiny

RunOf = Callable[..., Path]
FEW = ["--images", "20"]


@pytest.fixture
def follow(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function: see a command refused in one line, and give the one that follows from what the line says.

    It takes the words of both, in whose second ``{0}`` stands for what the first group of the pattern finds in the
    message, and returns what the second prints.
    """

    def run(refused: Sequence[object], pattern: str, accepted: Sequence[object]) -> str:
        assert main(["analyse", *map(str, refused)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        found = re.search(pattern, line)
        assert found is not None, line
        words = [str(word).format(*found.groups()) if isinstance(word, str) else str(word) for word in accepted]
        assert main(["analyse", *words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("refused", "pattern", "accepted"),
    [
        (["--of", "posteriori", *FEW], r"did you mean '(\w+)'\?", ["--of", "{0}", *FEW]),
        (["--of", "topmass", "--images", "0"], r"expected (\d) or more", ["--of", "topmass", "--images", "{0}"]),
        (
            ["--of", "topmass", "--positions", "x"],
            r"such as --positions (\S+)",
            ["--of", "topmass", "--positions", "{0}"],
        ),
        (
            ["--of", "topmass", "--positions", "500"],
            r"expected 0 to (\d+)$",
            ["--of", "topmass", "--positions", "{0}"],
        ),
        (
            ["--of", "topmass", "--split", "validation"],
            r"give one of (\w+), \w+$",
            ["--of", "topmass", "--split", "{0}", *FEW],
        ),
        (["--of", "tsne", "--images", "3"], r"give --images (\d) or more$", ["--of", "tsne", "--images", "{0}"]),
        (
            ["--of", "topmass", *FEW, "--address", "auto", "--on", "process"],
            "leave one of the two out$",
            ["--of", "topmass", *FEW, "--on", "process"],
        ),
        (
            ["--of", "topmass", *FEW, "--probe-epochs", "0"],
            r"expected (\d) or more",
            ["--of", "topmass", *FEW, "--probe-epochs", "{0}"],
        ),
    ],
)
def test_words(
    refused: list[str], pattern: str, accepted: list[str], run_of: RunOf, follow: Callable[..., str]
) -> None:
    run = run_of("end_to_end")
    follow([run, *refused], pattern, [run, *accepted])


@pytest.mark.parametrize(
    ("refused", "pattern", "accepted"),
    [
        (["--images", "1"], r"give --images (\d) or more;", ["--images", "{0}"]),
        (["--positions", "3"], "give two --positions or more;", ["--positions", "3,5"]),
    ],
)
def test_gradients_of_one_image(
    refused: list[str], pattern: str, accepted: list[str], run_of: RunOf, follow: Callable[..., str]
) -> None:
    run = run_of("dgl")
    follow([run, "--of", "gradients", *refused], pattern, [run, "--of", "gradients", *accepted])


@pytest.mark.slow
def test_runs(run_of: RunOf, follow: Callable[..., str], tmp_path: Path) -> None:
    run, other, own = run_of("end_to_end"), run_of("infopro"), run_of("own")
    topmass = ["--of", "topmass", *FEW]
    follow([run, run, *topmass], "give it once$", [run, *topmass])
    shown = follow([run, *topmass, "--to", tmp_path], r"its files go to (\S+)$", [run, *topmass])
    assert f"files: {run}/analysis/topmass" in shown
    similarity = ["--of", "similarity", *FEW]
    follow([run, *similarity], "give another run, too$", [run, other, *similarity])
    few = engine.train(tiny("end_to_end", data={"test_limit": 12}), Plan(executor="process"), tmp_path / "few").run_dir
    follow([run, few, *topmass], "or analyse them one by one$", [few, *topmass])
    follow([run, few, *topmass], "give runs of one data set", [run, other, *topmass])
    one = engine.train(tiny("dgl", data={"validation_fraction": 0.002}), Plan(executor="process"), tmp_path / "one")
    gradients = [one.run_dir, "--of", "gradients", "--split"]
    follow([*gradients, "validation"], "give a --split with more;", [*gradients, "train", *FEW])
    embedding = ["--of", "embedding", *FEW]
    follow([run, own, *embedding], "give networks alike$", [run, other, *embedding])
    follow([own, "--of", "topmass,cam", *FEW], "--of cam has no meaning .* leave one of them out$", [own, *topmass])
    follow([tmp_path, "--of", "report"], "give a folder that train, .* has written$", [run, "--of", "report"])


def test_what_is_not_installed(run_of: RunOf, follow: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    run = run_of("end_to_end")
    follow([run, "--of", "tsne", *FEW], r"or give (\w+), the principal components", [run, "--of", "{0}", *FEW])


@pytest.mark.slow
def test_a_fraction_loss_that_was_not_measured(run_of: RunOf, tmp_path: Path) -> None:
    with pytest.raises(engine.EngineError) as refused:
        analyse([run_of("end_to_end")], ["fractions"], Settings())
    found = re.search(r"train a recipe such as (\S+) with (\S+); leave", str(refused.value))
    assert found is not None, refused.value
    small = ["epochs=6", "data.train_limit=100", "data.batch_size=10", "backbone.widths=[4,4,4]"]
    recipe, plan = engine.apply_overrides(engine.load_recipe(found[1]), Plan(executor="process"), [found[2], *small])
    trained = engine.train(recipe, plan, tmp_path / "measured").run_dir
    assert main(["analyse", str(trained), "--of", "fractions"]) == 0

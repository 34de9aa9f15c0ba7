"""Does what a refusal of cuts says lead to a cut, or to a training?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine import backbones
from engine.benchmarking.batches import read_images
from engine.benchmarking.cases import EngineCases, Machine
from engine.cli.main import main
from engine.errors import InputError
from engine.recipes import Backbone, Plan, Recipe, apply_overrides, recipe_to_json

Words = list[str]


@pytest.mark.slow
def test_a_cut_that_is_still_to_be_measured(
    tiny_recipe: Callable[..., Recipe],
    start: Callable[[Words], None],
    refused: Callable[..., re.Match[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["method.cuts=measured", "method.num_segments=2"]
    refused(
        "train, compare or measure this recipe, or name the blocks that `local-learning estimate --profile` prints",
        lambda: start(words),
    )
    recipe, plan = apply_overrides(tiny_recipe(epochs=1), Plan(executor="process"), words)
    assert engine.train(recipe, plan, tmp_path / "run").status == "finished"
    # Both have chosen the cut before they train or time anything.
    monkeypatch.setattr("engine.comparison.driver.run_jobs", lambda *_: False)
    engine.compare({"one": recipe, "other": tiny_recipe(epochs=1)}, plan, (0,), tmp_path / "compared")
    assert 2 in EngineCases(read_images(recipe), plan, (1, 2), Machine(cores=1, gpus=0), lambda _: None).teams
    path = tmp_path / "recipe.json"
    path.write_text(recipe_to_json(recipe))
    assert main(["estimate", str(path), "--k", "2", "--profile", "--json"]) == 0
    cuts = json.loads(capsys.readouterr().out.splitlines()[-1])["cuts"]
    (blocks,) = (each["blocks"] for each in cuts if each["rule"] == "measured")
    start([f"method.cuts={','.join(blocks)}", words[1]])


def test_a_rule_for_cuts_that_there_is_not() -> None:
    """As code of one's own may ask for it; recipes are checked before."""
    network = backbones.build(Backbone(name="resnet32", widths=(4, 4, 4)), 10, (3, 32, 32), 1)
    with pytest.raises(InputError) as refused:
        backbones.cut(network, 2, "halves", "resnet32", (3, 32, 32))
    found = re.search(r"expected (\w+), (\w+), (\w+), or a list of block names", str(refused.value))
    assert found, refused.value
    for cuts in (found[1], found[2], ["layer2_0"]):
        assert len(backbones.cut(network, 2, cuts, "resnet32", (3, 32, 32))) == 2

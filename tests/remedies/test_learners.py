"""Does what a learner says when it fails while it works lead to a training?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine.errors import LearnerError
from engine.recipes import SGD, Recipe

TinyRecipe = Callable[..., Recipe]
Take = Callable[[list[str]], None]

NETWORKS = """
from collections import OrderedDict
from torch import nn


def network(num_classes, image_shape, inplace=True):
    blocks = OrderedDict(first=nn.Conv2d(image_shape[0], 4, 3, padding=1))
    for name in ("second", "third"):
        blocks[name] = nn.Sequential(nn.ReLU(inplace=inplace), nn.Conv2d(4, 4, 3, padding=1))
    blocks["end"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
    return nn.Sequential(blocks)
"""


def test_a_block_that_changes_its_input(tmp_path: Path, train: Take) -> None:
    (tmp_path / "networks.py").write_text(NETWORKS)
    words = [f"backbone.name={tmp_path}/networks.py:network", "backbone.widths=null", "method.num_segments=2"]
    with pytest.raises(LearnerError, match="make the first operation of each block out of place"):
        train(words)
    train([*words, 'backbone.options={"inplace":false}'])


def test_a_loss_that_is_not_finite(tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A picture takes longer than the training.
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    plan = engine.Plan(executor="process", checkpoint_every_steps=1)
    wild = tiny_recipe(optimizer=SGD(learning_rate=1e30))
    with pytest.raises(LearnerError) as failed:
        engine.train(wild, plan, tmp_path / "run")
    found = re.search(r"Lower (optimizer\.learning_rate) or the weight of this term", str(failed.value))
    assert found, failed.value
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    calm, _ = engine.apply_overrides(wild, plan, [f"{found[1]}=0.05"])
    assert engine.train(calm, plan, tmp_path / "calm").status == "finished"
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before

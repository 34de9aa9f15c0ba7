"""Is an endless loop in a learner's own code noticed, and what looped by chance trained to the end?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine.recipes import Backbone, InfoPro, Recipe, Recovery

RAY_CPUS = 2

NETWORK = """
from pathlib import Path

from torch import nn


class LoopsOnce(nn.Module):
    def __init__(self, marker):
        super().__init__()
        self.marker, self.calls = Path(marker), 0

    def forward(self, features):
        self.calls += self.training
        if self.calls == 7 and not self.marker.exists():
            self.marker.touch()
            while True:
                sum(range(1000))
        return features


def make(num_classes, image_shape, marker):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(image_shape[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), LoopsOnce(marker), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)),
    )
"""


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_learner_that_computes_for_ever_is_ended(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    (tmp_path / "net.py").write_text(NETWORK)
    marker = tmp_path / "has_looped"
    backbone = Backbone(name=f"{tmp_path}/net.py:make", widths=None, options={"marker": str(marker)})
    recipe = tiny_recipe(epochs=6, backbone=backbone, method=InfoPro(num_segments=2))
    marker.touch()
    undisturbed = engine.train(recipe, engine.Plan(executor="process"), tmp_path / "undisturbed")
    marker.unlink()
    plan = engine.Plan(recovery=Recovery(stall_seconds=3.0, snapshot_every_steps=3), report_every_steps=1)
    result = engine.train(recipe, plan, tmp_path / "run")
    assert (result.status, result.weights_sha256) == ("finished", undisturbed.weights_sha256)
    (fault,) = result.faults
    found = re.fullmatch(
        r"learner segment1: its process \d+ made no progress for (\d+) s in forward of step \d of epoch \d, and was "
        r"ended",
        fault.cause,
    )
    # Ten times as long as one that does nothing.
    assert found is not None and int(found[1]) >= 30, fault.cause
    assert "sum(range(1000))" in (tmp_path / "run" / "log.txt").read_text(), "the stack of its thread"

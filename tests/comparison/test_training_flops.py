"""Are the operations of a training those of its forward and backward passes, and counted once?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.comparison.cost import training_flops_per_image
from engine.recipes import SGD, EndToEnd
from tests.comparison.conftest import PLAN, Runner


def test_operations_are_those_of_a_forward_and_a_backward(tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers by hand: resnet14 with widths 4, 4, 4 on 8 x 8 digits; a backward is twice a forward.

    Only the first convolution has no gradient of its input to compute.
    """
    stem, stage1 = 64 * 1 * 4 * 9, 4 * 64 * 4 * 4 * 9
    # The first block of a stage halves the side, and has a convolution of 1 x 1 beside it where the shape changes.
    stage2, stage3 = 4 * 16 * 4 * 4 * 9 + 16 * 4 * 4, 4 * 4 * 4 * 4 * 9 + 4 * 4 * 4
    classifier = 4 * 10
    forward = stem + stage1 + stage2 + stage3 + classifier
    found = training_flops_per_image(tiny_recipe(method=EndToEnd()))
    assert found == 2 * (3 * forward - stem)
    assert training_flops_per_image(tiny_recipe(optimizer=SGD(learning_rate=1e30), epochs=4)) is None


def test_operations_of_images_that_are_read_beside_a_batch_count() -> None:
    """CS-KD looks at one more image for each image, without learning from it; DLB learns from each batch twice."""
    whole, beside, twice = (
        training_flops_per_image(engine.load_recipe(name))
        for name in ("end_to_end_digits", "cs_kd_digits", "dlb_digits")
    )
    assert whole is not None
    # A step is a forward and a backward of two forwards, the latter without the gradient of the pixels.
    stem = 64 * 1 * 4 * 9
    assert beside == whole + (whole + 2 * stem) / 3
    assert twice == 2 * whole


def test_operations_are_counted_once(recipes: Any, runner: Runner, tmp_path: Path, monkeypatch: Any) -> None:
    runner.stop_after = 0
    engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    monkeypatch.setattr(
        "engine.comparison.driver.training_flops_per_image", lambda recipe: pytest.fail("counted again")
    )
    found = engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    assert {row.label: row.flops_per_image for row in found.rows} == json.loads(
        (tmp_path / "c" / "costs.json").read_text()
    )

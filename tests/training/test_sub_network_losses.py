"""Are the losses of fractions and of several passes recorded where they are measured, and added up?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

import engine
from engine.recipes import GKT, ST, Fraction, Recipe
from engine.tracking import read_metrics
from tests.training.sub_network_methods import IN_PROCESS, MIXED


def test_the_losses_of_fractions_are_recorded_where_they_are_measured(
    tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    engine.train(recipe_of(MIXED), IN_PROCESS, tmp_path / "measured")
    engine.train(recipe_of(dataclasses.replace(MIXED, measure_fraction_every=0)), IN_PROCESS, tmp_path / "plain")
    found = [record for record in read_metrics(tmp_path / "measured") if record.name.startswith("fraction/")]
    rules = {name for rule in get_args(Fraction) for name in (rule, f"{rule}/bases", f"{rule}/model")}
    expected = rules | {"random", "model_error", "base_error", "negative_share"}
    assert {record.name.removeprefix("fraction/") for record in found} == expected
    assert {(record.learner, record.split) for record in found} == {("network", "train")}
    # Nothing is mixed in the first two epochs.
    assert min(record.epoch for record in found) == 3
    assert all(0 <= record.value < 4 for record in found)
    values: dict[tuple[int, str], float] = {(record.step, record.name): record.value for record in found}
    for step in {step for step, _ in values}:
        assert values[step, "fraction/keep"] == values[step, "fraction/base_error"]
        assert values[step, "fraction/exact/bases"] <= values[step, "fraction/keep"] + 1e-6
        assert values[step, "fraction/keep/model"] == 0
    assert not [record for record in read_metrics(tmp_path / "plain") if record.name.startswith("fraction/")]


def test_losses_of_several_passes_are_added_up(tmp_path: Path, recipe_of: Callable[..., Recipe]) -> None:
    for name, method in (("st", ST(num_subnetworks=3, weight=0.5)), ("gkt", GKT(distillation_weight=0.5))):
        engine.train(recipe_of(method), IN_PROCESS, tmp_path / name)
        term = {"st": "mimicry", "gkt": "knowledge"}[name]
        losses: dict[int, dict[str, float]] = {}
        for record in read_metrics(tmp_path / name):
            if record.name.startswith("loss/") and record.split == "train":
                losses.setdefault(record.step, {})[record.name.removeprefix("loss/")] = record.value
        assert losses
        assert all(found.keys() == {"cross_entropy", term, "total"} for found in losses.values())
        for found in losses.values():
            assert found["total"] == pytest.approx(found["cross_entropy"] + 0.5 * found[term], rel=1e-5)
        assert any(found[term] > 0 for found in losses.values())

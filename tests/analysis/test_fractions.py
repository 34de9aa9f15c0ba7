"""Is the curve the one that the training recorded, up to the checkpoint?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.analysis import OpenedRun, Settings, analyse
from engine.analysis.fractions import Fractions
from engine.errors import InputError
from engine.recipes import MKF, Plan
from tests.conftest import make_tiny_recipe


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = make_tiny_recipe(name="mkf", method=MKF(measure_fraction_every=1), epochs=4)
    return engine.train(recipe, Plan(executor="process"), tmp_path_factory.mktemp("mixed") / "mkf").run_dir


def test_the_curve_is_that_of_the_records(mixed: Path) -> None:
    (finding,) = analyse([mixed], ["fractions"], Settings())
    records = [each for each in engine.load(mixed).metrics() if each.name.startswith("fraction/")]
    plain = {each.name.removeprefix("fraction/") for each in records if each.name.count("/") == 1}
    rows = {row["measure"]: row for row in finding.rows}
    assert rows.keys() == plain >= {"random", "exact", "linear", "base_error"}
    for name in plain:
        values = [each.value for each in records if each.name == f"fraction/{name}"]
        assert rows[name]["measured"] == len(values) > 1
        assert rows[name]["first"] == values[0] and rows[name]["mean"] == pytest.approx(np.mean(values))
        assert rows[name]["last"] == pytest.approx(np.mean(values[-max(1, len(values) // 5) :]))
    bases = [each.value for each in records if each.name == "fraction/exact/bases"]
    assert rows["exact"]["last_from_bases"] == pytest.approx(np.mean(bases[-max(1, len(bases) // 5) :]))
    assert np.isnan(rows["random"]["last_from_bases"])
    assert "images" not in finding.caption and f"after step {engine.load(mixed).checkpoint.step}" in finding.caption


def test_what_was_recorded_behind_a_checkpoint_is_not_its_own(mixed: Path) -> None:
    with OpenedRun(mixed, Settings()) as opened:
        whole = Fractions().measure(opened, "network", "")["exact"]
        object.__setattr__(opened.run.checkpoint, "step", int(whole[1, 0]))
        assert np.array_equal(Fractions().measure(opened, "network", "")["exact"], whole[:2])


def test_a_run_that_measured_none_is_refused(run_of: Any) -> None:
    run = run_of("end_to_end")
    with pytest.raises(
        InputError, match=f"--of fractions has no meaning for {run}: method.kind=end_to_end has recorded"
    ):
        analyse([run], ["fractions"], Settings())

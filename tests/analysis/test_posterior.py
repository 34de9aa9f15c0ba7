"""Are entropy, calibration and the mass of ranks those of scikit-learn, scipy, and numbers worked out by hand?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss

import engine
from engine.analysis import Measured, OpenedRun, Settings, analyse
from engine.analysis.posterior import Posterior
from engine.analysis.predictions import reliability
from engine.analysis.topmass import TopMass, ranked_mass


def test_posterior_is_scored_as_by_others() -> None:
    drawn = np.random.default_rng(0)
    logits, labels = drawn.normal(0, 2, (400, 7)).astype(np.float32), drawn.integers(0, 7, 400)
    (row,) = Posterior().rows([Measured("run", "network", "run", "run", "", {"logits": logits, "labels": labels})])
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    entropy = scipy.stats.entropy(probabilities, axis=1)
    assert row["accuracy"] == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert row["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(7)))
    assert row["entropy"] == pytest.approx(entropy.mean()) and row["entropy_median"] == pytest.approx(
        np.median(entropy)
    )
    assert row["confidence"] == pytest.approx(probabilities.max(1).mean())


def test_reliability_is_that_of_scikit_learn() -> None:
    drawn = np.random.default_rng(1)
    confidence, correct = drawn.uniform(0.2, 1.0, 500), drawn.random(500) < 0.7
    share, mean, accuracy = reliability(confidence, correct)
    true, predicted = calibration_curve(correct, confidence, n_bins=15)
    seen = share > 0
    assert accuracy[seen] == pytest.approx(true) and mean[seen] == pytest.approx(predicted)
    assert share.sum() == pytest.approx(1.0)


def test_entropy_ends_at_nothing_and_at_all_classes() -> None:
    logits = np.array([[1000.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0]], dtype=np.float32)
    (row,) = Posterior().rows([Measured("r", "n", "r", "r", "", {"logits": logits, "labels": np.array([0, 0])})])
    assert row["entropy"] == pytest.approx(np.log(4) / 2)
    assert row["confidence"] == pytest.approx((1 + 0.25) / 2)


def test_mass_is_ranked_by_hand() -> None:
    probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert ranked_mass(probabilities) == pytest.approx([0.55, 0.3, 0.15])
    assert ranked_mass(probabilities, np.array([0, 2])) == pytest.approx([0.2, 0.55, 0.25])
    assert probabilities[0, 0] == 0.1
    many = np.full((1, 8), 0.125)
    assert ranked_mass(many) == pytest.approx([0.125] * 5)


@pytest.mark.parametrize("name", ["end_to_end", "infopro", "dml"])
def test_scores_are_those_of_the_evaluation(trained_runs: Any, run_of: Any, name: str) -> None:
    run = engine.load(trained_runs(name))
    metrics = engine.evaluate(run)
    (finding,) = analyse([run_of(name)], ["posterior"], Settings())
    for row in finding.rows:
        prefix = f"{row['network']}/" if name == "dml" else ""
        for ours, theirs in (("accuracy", "accuracy"), ("loss", "loss"), *[("expected_calibration_error",) * 2]):
            assert row[ours] == pytest.approx(metrics[f"{prefix}test/{theirs}"], rel=1e-6)


def test_on_training_images_the_label_is_never_likelier_than_the_first_rank(trained_runs: Any) -> None:
    with OpenedRun(trained_runs("infopro"), Settings(split="train")) as opened:
        arrays = TopMass().measure(opened, "network", "")
        measured = Measured("run", "network", "run", "run", "", arrays)
    (row,) = TopMass().rows([measured])
    assert row["true_first_1"] <= row["mass_1"] and row["mass_1"] + row["secondary_mass"] == pytest.approx(1.0)
    assert 1.0 <= row["effective_classes"] <= 10.0

"""Is the similarity of two networks what scipy and scikit-learn make of it, and CKA what its definition says?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
from sklearn.metrics.pairwise import paired_cosine_distances, paired_euclidean_distances

import engine
from engine.analysis import Settings, analyse
from engine.analysis.similarity import compared_features, compared_predictions, linear_cka
from engine.errors import InputError

FEW = Settings(images=20)


def _drawn(seed: int) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(seed)
    labels = np.random.default_rng(9).integers(0, 5, 300)
    logits = drawn.normal(0, 1.5, (300, 5)) + 2.0 * np.eye(5)[labels]
    return {"logits": logits, "labels": labels, "features": drawn.normal(0, 1, (300, 8)) + labels[:, None]}


def test_predictions_are_compared_as_by_scipy() -> None:
    one, other = _drawn(0), _drawn(1)
    row = compared_predictions(one, other)
    p, q = (scipy.special.softmax(each["logits"], axis=1) for each in (one, other))
    wrong = [(each.argmax(1) != one["labels"]).astype(float) for each in (p, q)]
    assert row["agreement"] == pytest.approx(np.mean(p.argmax(1) == q.argmax(1)))
    assert row["disagreement"] == pytest.approx(1 - row["agreement"])
    assert row["error_correlation"] == pytest.approx(scipy.stats.pearsonr(*wrong).statistic)
    assert row["kl"] == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean())
    assert row["kl_back"] == pytest.approx(scipy.stats.entropy(q, p, axis=1).mean())
    distance = scipy.spatial.distance.jensenshannon(p, q, axis=1)
    assert row["jensen_shannon"] == pytest.approx((distance**2).mean())
    ensemble = np.mean(((p + q) / 2).argmax(1) == one["labels"])
    assert row["ensemble_gain"] == pytest.approx(ensemble - 1 + np.mean(wrong))


def test_features_are_compared_as_by_scikit_learn() -> None:
    one, other = _drawn(0), _drawn(1)
    row = compared_features(one, other)
    assert row["feature_distance"] == pytest.approx(
        paired_euclidean_distances(one["features"], other["features"]).mean()
    )
    cosine = 1 - paired_cosine_distances(one["features"], other["features"]).mean()
    assert row["feature_cosine"] == pytest.approx(cosine)
    wider = {"features": np.ones((300, 9))}
    assert math.isnan(compared_features(one, wider)["feature_distance"])
    assert math.isnan(compared_features(one, wider)["cka"])


def test_cka_is_that_of_the_kernels_and_blind_to_rotation() -> None:
    drawn = np.random.default_rng(2)
    x, y = drawn.normal(size=(50, 6)), drawn.normal(size=(50, 9))
    y[:, :6] += x
    centring = np.eye(50) - 1 / 50
    k, m = (centring @ each @ each.T @ centring for each in (x, y))
    kernels = np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(x, y) == pytest.approx(kernels)
    rotation, _ = np.linalg.qr(drawn.normal(size=(6, 6)))
    assert linear_cka(x, 3.0 * x @ rotation + 7.0) == pytest.approx(1.0)
    assert linear_cka(x, drawn.normal(size=(50, 6))) < 0.5


def test_peers_are_compared_as_the_evaluation_compares_them(trained_runs: Any, run_of: Any) -> None:
    (finding,) = analyse([run_of("dml")], ["similarity"], Settings())
    metrics = engine.evaluate(engine.load(trained_runs("dml")))
    (row,) = finding.rows
    assert (row["first"], row["second"]) == ("peer0", "peer1")
    assert row["disagreement"] == pytest.approx(metrics["ensemble/test/disagreement"], abs=1e-6)
    assert (row["kl"] + row["kl_back"]) / 2 == pytest.approx(metrics["ensemble/test/kl_between_peers"], rel=1e-4)


def test_segments_are_compared_by_their_own_heads(run_of: Any) -> None:
    run, same = run_of("infopro"), run_of("infopro", "same")
    (finding,) = analyse([run], ["similarity"], FEW)
    pairs = [(row["first"], row["second"]) for row in finding.rows]
    names = ["infopro segment0", "infopro segment1", "infopro"]
    assert pairs == [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    assert all(0 <= row["agreement"] <= 1 and 0 < row["cka"] <= 1 for row in finding.rows)
    *_, together = analyse([run, same], ["similarity"], FEW)
    equal = {row["first"]: row for row in together.rows if row["second"] == row["first"].replace("infopro", "same")}
    assert equal.keys() == set(names)
    for row in equal.values():
        assert row["agreement"] == 1 and row["kl"] == 0 and row["feature_distance"] == 0
        assert row["cka"] == pytest.approx(1.0)


def test_one_network_alone_is_refused(run_of: Any) -> None:
    run, other = run_of("end_to_end"), run_of("infopro")
    with pytest.raises(InputError, match=f"--of similarity compares networks or segments, but {run} has one network,"):
        analyse([run], ["similarity"], FEW)
    told: list[str] = []
    findings = analyse([run, other], ["similarity"], FEW, tell=told.append)
    assert len(findings) == 2 and any("has nothing in it to be compared" in line for line in told)

"""Does the linear probe find what scikit-learn's logistic regression finds, behind every block?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from engine.analysis import OpenedRun, Settings, analyse
from engine.analysis.features import features_behind, pooled
from engine.analysis.separability import WEIGHT_DECAY, Separability, linear_probe
from tests.analysis.own_network import WIDTH

FEW = Settings(images=20)


def _fitted(features: np.ndarray, labels: np.ndarray) -> Any:
    regression = LogisticRegression(C=1 / (WEIGHT_DECAY * len(labels)), max_iter=5000, tol=1e-8)
    return make_pipeline(StandardScaler(), regression).fit(features, labels)


def test_the_probe_is_logistic_regression() -> None:
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, 4, 200)
    features = drawn.normal(0, 1.5, (200, 6)) + labels[:, None] * np.arange(6)
    features[:, 5] = 2.0
    (logits,) = linear_probe(torch.tensor(features), torch.tensor(labels), [torch.tensor(features)], 4)
    expected = _fitted(features, labels).predict_proba(features)
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-4)


def test_every_block_is_probed_on_its_pooled_features(run_of: Any) -> None:
    run = run_of("infopro")
    (finding,) = analyse([run], ["separability"], FEW)
    with OpenedRun(run, FEW) as opened:
        network = opened.run.network("network")
        blocks = [name for name, _ in network.named_children()]
        assert [row["block"] for row in finding.rows] == blocks[:-1]
        assert [row["depth"] for row in finding.rows] == list(range(len(blocks) - 1))
        assert len(opened.probed().places) == 44 and opened.probed().batch.split == "train"
        sets = opened.probed(), opened.images
        with torch.no_grad():
            features = [network[:3](each.inputs()).mean((2, 3)).numpy() for each in sets]
        labels = [each.batch.labels for each in sets]
    fitted, row = _fitted(features[0], labels[0]), finding.rows[2]
    assert row["accuracy"] == pytest.approx(fitted.score(features[1], labels[1]))
    assert row["training_accuracy"] == pytest.approx(fitted.score(features[0], labels[0]))


def test_features_of_any_layout_are_averaged_over_their_positions(run_of: Any) -> None:
    with OpenedRun(run_of("own"), FEW) as opened:
        network = opened.run.network("network")
        with torch.no_grad():
            maps, tokens = network[0](opened.images.inputs()), network[:2](opened.images.inputs())
        assert maps.shape == (20, 4, 4, WIDTH) and tokens.shape == (20, 17, WIDTH)

        def found(block: str) -> torch.Tensor:
            return features_behind(opened, "network", block, opened.images, pooled)

        expected = maps.flatten(1, 2).mean(1)
        torch.testing.assert_close(found("maps"), expected)
        torch.testing.assert_close(found("tokens"), expected)


def test_a_probe_that_is_done_is_kept_when_another_is_interrupted(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, done, measure = run_of("end_to_end"), list[str](), Separability.measure

    def interrupted(self: Separability, opened: OpenedRun, network: str, part: str) -> Any:
        if len(done) == 3:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append(part)
        return measure(self, opened, network, part)

    monkeypatch.setattr(Separability, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        analyse([run], ["separability"], FEW)
    (finding,) = analyse([run], ["separability"], FEW)
    assert [part for part in done if part != "interrupted"] == [row["block"] for row in finding.rows]

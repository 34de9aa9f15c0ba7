"""Is the plane that of scikit-learn's PCA, common to all networks?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from engine.analysis import Measured, OpenedRun, Settings, analyse
from engine.analysis.embedding import draw_planes, principal_components
from engine.errors import InputError

FEW = Settings(images=20)


def test_components_are_those_of_scikit_learn() -> None:
    features = np.random.default_rng(0).normal(size=(60, 5)) * np.array([5.0, 3.0, 1.0, 1.0, 0.5])
    points, shares = principal_components(features)
    expected = PCA(2).fit(features)
    other = expected.transform(features)
    np.testing.assert_allclose(abs(points), abs(other), atol=1e-9)
    assert shares == pytest.approx(tuple(expected.explained_variance_ratio_))
    np.testing.assert_allclose(principal_components(features)[0], points, atol=0)


def test_networks_share_a_plane_of_standardised_features(run_of: Any) -> None:
    run = run_of("dml")
    (finding,) = analyse([run], ["embedding"], FEW)
    with OpenedRun(run, FEW) as opened:
        each = [StandardScaler().fit_transform(opened.outputs(name)[1].astype(np.float64)) for name in opened.networks]
    other = PCA(2).fit_transform(np.concatenate(each))
    points = np.array([[row["component_1"], row["component_2"]] for row in finding.rows])
    np.testing.assert_allclose(abs(points), abs(other), atol=1e-6)
    assert [row["network"] for row in finding.rows] == ["peer0"] * 20 + ["peer1"] * 20


def test_a_class_of_another_name_has_the_colour_of_its_label() -> None:
    arrays = {"labels": np.array([0, 1, 1])}
    names = (("zero", "one"), ("0", "1", "2"))
    found = [Measured("run", "network", "a", "a", "", arrays, each) for each in names]
    figure = draw_planes(found, [np.eye(3)[:, :2]] * 2, "title", "across", "up")
    first, second = figure.axes
    assert [each.get_text() for each in first.texts] == ["zero", "one"]
    assert [each.get_text() for each in second.texts] == ["0", "1"]
    drawn = [[each.get_facecolor().tolist() for each in axes.collections] for axes in (first, second)]
    assert drawn[0] == drawn[1] and drawn[0][0] != drawn[0][1]


def test_other_widths_are_refused_before_anything_is_measured(run_of: Any) -> None:
    runs = [run_of("end_to_end"), run_of("own")]
    with pytest.raises(InputError, match=r"^--of embedding: .* no plane in common \(network of .* has 4, .* has 85\)"):
        analyse(runs, ["posterior", "embedding"], FEW)
    assert not any((run / "analysis").exists() for run in runs)

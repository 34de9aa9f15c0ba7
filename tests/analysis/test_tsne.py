"""Is t-SNE repeatable, does it keep neighbourhoods, and is what it cannot do refused?"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from engine.analysis import Measured, Settings, analyse
from engine.analysis.tsne import TSNE, _embedded
from engine.errors import InputError

FEW = Settings(images=20)


def _clusters(network: str, seed: int) -> Measured:
    drawn = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 20)
    features = 8.0 * np.eye(3)[labels] @ drawn.normal(size=(3, 6)) + drawn.normal(size=(60, 6))
    arrays = {"features": features.astype(np.float32), "labels": labels, "positions": np.arange(60)}
    return Measured("run", network, network, network, "", arrays, ("a", "b", "c"))


def test_neighbours_stay_neighbours_and_nothing_is_drawn() -> None:
    found = [_clusters("peer0", 0), _clusters("peer1", 1)]
    rows = TSNE().rows(found)
    points = np.array([[row["x"], row["y"]] for row in rows])
    features = np.concatenate([each.arrays["features"] for each in found])
    for own in (slice(0, 60), slice(60, 120)):
        assert trustworthiness(features[own], points[own], n_neighbors=5) > 0.9
    assert [row["network"] for row in rows] == ["peer0"] * 60 + ["peer1"] * 60
    assert {row["perplexity"] for row in rows} == {30.0} and 0 < rows[0]["divergence"] < 2
    _embedded.cache_clear()
    np.random.seed(7)
    assert TSNE().rows(found) == rows


def test_features_that_are_all_equal_have_a_place(recwarn: pytest.WarningsRecorder) -> None:
    constant = _clusters("network", 0)
    constant.arrays["features"][:] = 1.0
    assert all(np.isfinite([row["x"], row["y"]]).all() for row in TSNE().rows([constant]))


def test_a_run_is_drawn_and_few_images_are_refused(run_of: Any) -> None:
    run = run_of("dml")
    (finding,) = analyse([run], ["tsne"], FEW)
    assert len(finding.rows) == 40 and finding.rows[0]["perplexity"] == pytest.approx(13.0)
    assert (finding.folder / "picture.png").stat().st_size > 10_000
    with pytest.raises(InputError, match=r"^--of tsne: 3 images have no neighbourhoods; give --images 4 or more$"):
        analyse([run], ["tsne"], Settings(images=3))


def test_the_extra_is_named_where_it_is_missing(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("end_to_end")
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(InputError, match=r"^--of tsne: needs scikit-learn; pip install 'local-learning\[analysis\]'"):
        analyse([run], ["posterior", "tsne"], FEW)
    assert not (run / "analysis").exists()
    assert len(analyse([run], ["embedding"], FEW)) == 1

"""Is noise what it is said to be, and the eigenvalue that of the whole Hessian?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.analysis import OpenedRun, Settings, analyse
from engine.analysis.flatness import DEVIATIONS, drawn_noise, hessian_product, largest_eigenvalue

FEW = Settings(images=20)


@pytest.mark.parametrize("shift", [0.0, -30.0])
def test_the_eigenvalue_is_that_of_the_matrix_also_where_another_is_larger_in_size(shift: float) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))
    values = np.array([9.0, 5.0, 3.0, *np.linspace(-2, 2, 9)]) + shift
    matrix = torch.tensor(rotation @ np.diag(values) @ rotation.T)
    found = largest_eigenvalue(lambda vector: matrix @ vector, torch.ones(12, dtype=torch.float64))
    assert found == pytest.approx(9.0 + shift, abs=0.05)


def test_the_product_is_that_of_the_whole_hessian(trained_runs: Any) -> None:
    with OpenedRun(trained_runs("end_to_end"), FEW) as opened:
        images = opened.images
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh(), nn.Linear(3, 10))

        def loss(vector: torch.Tensor) -> torch.Tensor:
            pieces = vector.split([each.numel() for each in network.parameters()])
            named = {
                name: piece.view_as(each)
                for (name, each), piece in zip(network.named_parameters(), pieces, strict=True)
            }
            return F.cross_entropy(torch.func.functional_call(network, named, images.inputs()), images.labels())

        weights = torch.cat([each.detach().flatten() for each in network.parameters()])
        hessian = torch.autograd.functional.hessian(loss, weights)
        vector, product = torch.randn(len(weights)), hessian_product(network, images)
        np.testing.assert_allclose(product(vector).numpy(), (hessian @ vector).numpy(), atol=1e-5)
        expected = float(torch.linalg.eigvalsh(hessian)[-1])
        assert largest_eigenvalue(product, torch.randn(len(weights))) == pytest.approx(expected, rel=0.01)


def test_noise_is_common_and_as_long_as_its_filter() -> None:
    one, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    for first, second in zip(drawn_noise(one, "absolute", 0, 1), drawn_noise(other, "absolute", 0, 1), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(drawn_noise(one, "absolute", 0, 1)[0], drawn_noise(one, "absolute", 0, 2)[0])
    weight, bias = drawn_noise(one, "filter_normalised", 0, 1)
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), one.weight.detach().flatten(1).norm(dim=1))
    assert not bias.any()
    (large, _) = drawn_noise(nn.Linear(300, 300), "absolute", 0, 0)
    assert float(large.std()) == pytest.approx(1.0, abs=0.02) and float(large.mean()) == pytest.approx(0.0, abs=0.02)


def test_without_noise_the_loss_is_that_of_the_posterior(run_of: Any) -> None:
    run = run_of("dml")
    flat, posterior = analyse([run], ["posterior", "flatness"], FEW)[::-1]
    assert [row["deviation"] for row in flat.rows] == [each for kind in DEVIATIONS.values() for each in kind] * 2
    losses = {row["network"]: row["loss"] for row in posterior.rows}
    still = [row for row in flat.rows if row["deviation"] == 0.0]
    assert all(row["loss"] == pytest.approx(losses[row["network"]], rel=1e-6) for row in still)
    assert all(row["loss_deviation"] == pytest.approx(0.0, abs=1e-12) for row in still)
    moved = [row for row in flat.rows if row["deviation"] > 0.0]
    assert all(row["loss_deviation"] > 0 and row["largest_eigenvalue"] > 0 for row in moved)
    with OpenedRun(run, FEW) as opened:
        weights = torch.cat([each.detach().flatten() for each in opened.network("peer0").parameters()])
    assert flat.rows[0]["weight_norm"] == pytest.approx(float(weights.norm()), rel=1e-5)


def test_frozen_and_unused_weights_are_part_of_the_network(run_of: Any) -> None:
    (finding,) = analyse([run_of("own")], ["flatness"], FEW)
    assert all(row["largest_eigenvalue"] > 0 for row in finding.rows)

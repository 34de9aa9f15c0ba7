"""Are the gradients those that training and plain back-propagation take, and do the ends agree as they must?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.analysis import OpenedRun, Settings, analyse
from engine.analysis.gradients import GradientAgreement, _by_block
from engine.errors import InputError

TRAINING = Settings(split="train", images=24)


def test_the_cosine_is_that_of_backward_by_hand(trained_runs: Any) -> None:
    with OpenedRun(trained_runs("infopro"), TRAINING) as opened:
        arrays = GradientAgreement().measure(opened, "network", "")
        assert all(values.shape == (2, 2) for values in arrays.values())
        network, learners = opened.run.network("network").train(), opened.learners("network")
        batch = slice(12, 24)
        F.cross_entropy(network(opened.images.inputs(batch)), opened.images.labels(batch)).backward()
        first = learners["segment0"]
        first.body.train()
        first.objective.train()
        features = first.body(opened.images.inputs(batch))
        terms, weights = first.objective.terms, first.objective.weights
        label = F.cross_entropy(terms["cross_entropy"].head(features), opened.images.labels(batch))
        image = F.binary_cross_entropy_with_logits(
            terms["reconstruction"].decoder(features), opened.images.pixels(batch)
        )
        (weights["cross_entropy"] * label + weights["reconstruction"] * image).backward()
        for depth, (block, module) in enumerate(first.body.named_children()):
            local = torch.cat([each.grad.flatten() for each in module.parameters()])
            whole = torch.cat([each.grad.flatten() for each in network.get_submodule(block).parameters()])
            cosine, ratio = arrays[f"{depth:04}|segment0|{block}"][1]
            assert cosine == pytest.approx(float(F.cosine_similarity(local, whole, dim=0)), abs=1e-4)
            assert ratio == pytest.approx(float(local.norm() / whole.norm()), rel=1e-3)


def test_the_last_segment_agrees_fully_and_nothing_is_changed(run_of: Any) -> None:
    run = run_of("infopro")
    (finding,) = analyse([run], ["gradients"], TRAINING)
    last = [row for row in finding.rows if row["head"] == "segment2"]
    assert last and all(row["cosine"] == pytest.approx(1.0) for row in last)
    assert all(row["norm_ratio"] == pytest.approx(1.0) for row in last)
    earlier = [row["cosine"] for row in finding.rows if row["head"] == "segment0"]
    assert earlier and all(-1.0 <= cosine < 0.99 for cosine in earlier)
    depths = [row["depth"] for row in finding.rows]
    assert depths == sorted(depths) == list(dict.fromkeys(depths))


def test_branches_are_compared_in_the_blocks_that_they_share(trained_runs: Any) -> None:
    with OpenedRun(trained_runs("dsl"), TRAINING) as opened:
        arrays = GradientAgreement().measure(opened, "network", "")
        (learner,) = opened.learners("network").values()
        blocks = [name for name, _ in learner.body.named_children()]
        forks = learner.objective.hooks
        heads = {key.split("|")[1] for key in arrays}
        assert len(heads) == len(forks) == 2
        for head in heads:
            seen = [key.split("|")[2] for key in sorted(arrays) if key.split("|")[1] == head]
            assert seen == blocks[: len(seen)] and seen[-1] in forks
        assert all(np.abs(values[:, 0]).max() <= 1.0 for values in arrays.values())


def test_a_network_with_one_loss_is_refused(run_of: Any) -> None:
    run = run_of("dml")
    with pytest.raises(InputError, match=f"--of gradients has no meaning for {run}: peer0 has neither segments nor"):
        analyse([run], ["gradients"], TRAINING)


def test_frozen_weights_have_no_gradient() -> None:
    blocks = {"frozen": nn.Linear(2, 2).requires_grad_(False), "partly": nn.Linear(2, 2)}
    blocks["partly"].bias.requires_grad_(False)
    loss = blocks["partly"](blocks["frozen"](torch.ones(1, 2))).sum()
    assert {name: len(gradient) for name, gradient in _by_block(loss, blocks).items()} == {"partly": 4}
    assert _by_block(loss, {"frozen": blocks["frozen"]}) == {}

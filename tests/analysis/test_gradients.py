"""Are the gradients those that training and plain back-propagation take, and do the ends agree as they must?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import engine
from engine.analysis import Measured, OpenedRun, Settings, analyse
from engine.analysis.block_gradients import by_block
from engine.analysis.gradients import GradientAgreement
from engine.analysis.images import ImageSet
from engine.errors import InputError
from engine.recipes import DGL, DML, Backbone, Peer, Plan, Recipe, Retrieval
from engine.streams import generator
from tests.analysis.conftest import tiny

TRAINING = Settings(split="train", images=24)


def test_the_cosine_is_that_of_backward_by_hand(trained_runs: Any) -> None:
    with OpenedRun(trained_runs("infopro"), TRAINING) as opened:
        arrays = GradientAgreement().measure(opened, "network", "")
        assert all(values.shape == (2, 3) for values in arrays.values())
        network, learners = opened.run.network("network").train(), opened.learners("network")
        batch = torch.randperm(24, generator=generator(0, "analysis", "gradients")).numpy()[12:]
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
            cosine, ratio, images = arrays[f"{depth:04}|segment0|{block}"][1]
            assert cosine == pytest.approx(float(F.cosine_similarity(local, whole, dim=0)), abs=1e-4)
            assert ratio == pytest.approx(float(local.norm() / whole.norm()), rel=1e-3) and images == 12


def test_the_last_segment_agrees_fully_and_nothing_is_changed(run_of: Any) -> None:
    run = run_of("infopro")
    (finding,) = analyse([run], ["gradients"], TRAINING)
    last = [row for row in finding.rows if row["head"] == "segment2"]
    assert last and all(row["cosine"] == pytest.approx(1.0) for row in last)
    assert all(row["norm_ratio"] == pytest.approx(1.0) for row in last)
    earlier = [row["cosine"] for row in finding.rows if row["head"] == "segment0"]
    assert earlier and all(-1.0 <= cosine < 0.99 for cosine in earlier)
    assert "left out" not in finding.caption
    depths = [row["depth"] for row in finding.rows]
    assert depths == sorted(depths) == list(dict.fromkeys(depths))


def test_batches_are_drawn_and_the_table_says_of_how_many_images(
    trained_runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, labels = list[list[int]](), ImageSet.labels

    def noted(self: ImageSet, rows: Any = slice(None)) -> torch.Tensor:
        asked.append(np.arange(len(self.places))[rows].tolist())
        return labels(self, rows)

    monkeypatch.setattr(ImageSet, "labels", noted)
    with OpenedRun(trained_runs("dgl"), Settings(split="train", images=30)) as opened:
        arrays = GradientAgreement().measure(opened, "network", "")
    assert [len(each) for each in asked] == [12, 12] and len({*asked[0], *asked[1]}) == 24
    # A set may be stored class by class.
    assert all(max(each) - min(each) > 20 for each in asked)
    rows = GradientAgreement().rows([Measured("run", "network", "network", "network", "", arrays)])
    assert {(row["batches"], row["images"]) for row in rows} == {(2, 24)}


def _trained(recipe: Recipe, folder: Path) -> Path:
    return engine.train(recipe, Plan(executor="process"), folder / "run").run_dir


def test_both_gradients_are_of_the_same_dropout_which_is_drawn_by_the_seed(tmp_path: Path) -> None:
    recipe = tiny("dgl", backbone=Backbone(name="wrn_16_1", dropout=0.3), data={"train_limit": 12})
    with OpenedRun(_trained(recipe, tmp_path), Settings(split="train", images=12)) as opened:
        arrays, again = (GradientAgreement().measure(opened, "network", "") for _ in range(2))
    assert arrays.keys() == again.keys() and all(np.array_equal(arrays[key], again[key]) for key in arrays)
    last = [values for key, values in arrays.items() if "|segment1|" in key]
    # Cosine, ratio and images of the one batch.
    assert last and all(values[0].tolist() == pytest.approx([1.0, 1.0, 12.0]) for values in last)


def test_the_caption_names_what_is_left_out(tmp_path: Path) -> None:
    method = DML(peers=(Peer(), Peer()), peer_method=DGL(num_segments=2), local_weight=0.5)
    task = Retrieval(label_smoothing=0.1, triplet_weight=1.0)
    run = _trained(tiny("dml", method=method, task=task, data={"train_limit": 12}), tmp_path)
    with OpenedRun(run, Settings(split="train", images=12)) as opened:
        arrays = {peer: GradientAgreement().measure(opened, peer, "") for peer in opened.networks}
    found = [Measured("run", peer, peer, peer, "", each) for peer, each in arrays.items()]
    terms = "label smoothing of {0}_segment1, mimicry of {0}_segment0, mimicry of {0}_segment1, triplet of {0}_segment1"
    assert GradientAgreement().remark(found) == f"left out: {terms.format('peer0')}, {terms.format('peer1')}"
    (first, *_) = GradientAgreement().remark([*found, Measured("other", "", "", "", "", {})]).split(", ")
    assert first == "left out: label smoothing of peer0_segment1 (run)"


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
    assert {name: len(gradient) for name, gradient in by_block(loss, blocks).items()} == {"partly": 4}
    assert by_block(loss, {"frozen": blocks["frozen"]}) == {}

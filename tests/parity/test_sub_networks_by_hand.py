"""Sub-networks against loops written by hand, which use none of the engine's training code, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from engine import backbones
from engine.recipes import ST, Recipe, StochasticDepth
from engine.streams import generator
from tests.parity.network_by_hand import SEED, STREAM, ByHand, _assert_trained, _batches

TinyRecipe = Callable[..., Recipe]


def test_stochastic_depth_divides_what_remains_by_its_chance(small: TinyRecipe, tmp_path: Path) -> None:
    recipe = small(StochasticDepth(last_survival=0.3), epochs=2)
    hand = ByHand(recipe)
    names = [name for stage in hand.stages for name in stage]
    chances = {name: 1 - (1 - 0.3) * place / len(names) for place, name in enumerate(names, start=1)}
    ran = []
    for batch, pixels, labels, normalised in _batches(recipe):
        stream = generator(SEED, STREAM, "depth", batch.epoch, batch.step)
        draws = torch.cat([torch.rand(1, generator=stream, dtype=torch.float64) for _ in names]).tolist()
        kept = {name for name, draw in zip(names, draws, strict=True) if draw < chances[name]}
        ran.append(len(kept))
        features = normalised(pixels)
        for name, block in hand.network.named_children():
            if name not in chances:
                features = block(features)
            elif name in kept:
                assert isinstance(block, backbones.residual.BasicBlock)
                branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(features)))))
                features = F.relu(features + branch * (1 / chances[name]))
        hand.learn(F.cross_entropy(features, labels))
    assert len(set(ran)) > 1
    _assert_trained(recipe, tmp_path / "run", hand.network)


@pytest.mark.parametrize("count", [1, 2])
def test_stimulative_training_adds_up_the_gradients_of_its_sub_networks(
    count: int, small: TinyRecipe, tmp_path: Path
) -> None:
    method = ST(num_subnetworks=count, weight=0.7, temperature=3.0, recalibration_images=0)
    recipe = small(method, epochs=2)
    hand = ByHand(recipe)
    dropped_blocks = set()
    for batch, pixels, labels, normalised in _batches(recipe):
        images = normalised(pixels)
        full = hand.logits(images)
        losses = [F.cross_entropy(full, labels)]
        teacher = F.log_softmax(full.detach() / 3, dim=1)
        stream = generator(SEED, STREAM, "sub-networks", batch.epoch, batch.step)
        for _ in range(count):
            draws = [torch.rand((), generator=stream, dtype=torch.float64).item() for _ in hand.stages]
            depths = [math.floor(draw * 3) for draw in draws]
            dropped = frozenset(
                name for stage, depth in zip(hand.stages, depths, strict=True) for name in stage[2 - depth :]
            )
            dropped_blocks |= dropped
            student = F.log_softmax(hand.logits(images, dropped) / 3, dim=1)
            losses.append(0.7 * (9 * F.kl_div(student, teacher, log_target=True, reduction="batchmean")))
        hand.learn(*losses)
    assert dropped_blocks == {name for stage in hand.stages for name in stage}
    _assert_trained(recipe, tmp_path / "run", hand.network)

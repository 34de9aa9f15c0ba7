"""What do the loops of sub-networks share: a network and its optimizer, the batches, and what it is compared with.

It is compared bit for bit. That is the only way: narrow networks have channels that are almost dead, and let rounding
grow to 0.01 in a few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import engine
from engine import backbones
from engine.backbones import droppable_stages
from engine.data import Batch, open_source
from engine.recipes import Recipe

# 3 steps an epoch, one of each of the 3 groups; 2 blocks of each of the 3 stages can be left out.
SEED, BATCH, STEPS, CLASSES = 3, 16, 3, 10
RATE, MOMENTUM, DECAY = 0.05, 0.9, 5e-4
STREAM = "segment0"


class ByHand:
    """A network and its optimizer."""

    def __init__(self, recipe: Recipe) -> None:
        self.network = backbones.build(recipe.backbone, CLASSES, (1, 8, 8), recipe.seed).train()
        self.stages = droppable_stages(self.network)
        parameters = list(self.network.parameters())
        self.optimizer = torch.optim.SGD(parameters, RATE, MOMENTUM, weight_decay=DECAY, nesterov=True, fused=True)
        for weights in parameters:
            # Of the same bits as plain SGD from the start (see the tests of optimizers), but for blocks without a part.
            self.optimizer.state[weights]["momentum_buffer"] = torch.zeros_like(weights)

    def logits(self, images: Tensor, dropped: frozenset[str] = frozenset()) -> Tensor:
        for name, block in self.network.named_children():
            if name not in dropped:
                images = block(images)
        return images

    def learn(self, *losses: Tensor) -> None:
        for loss in losses:
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _batches(recipe: Recipe) -> Iterator[tuple[Batch, Tensor, Tensor, Callable[[Tensor], Tensor]]]:
    """Yield batch, pixels, labels and the normalisation."""
    source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (source.facts.mean, source.facts.std))
    for epoch in range(recipe.epochs):
        for step in range(source.steps_per_epoch()):
            batch = source.batch(epoch, step)
            pixels = torch.from_numpy(batch.images).float() / 255
            yield batch, pixels, torch.from_numpy(batch.labels), lambda images: (images - mean) / std
    source.close()


def _assert_trained(recipe: Recipe, folder: Path, network: nn.Module) -> None:
    """Train the recipe, and compare weights and running statistics."""
    run = engine.load(engine.train(recipe, engine.Plan(executor="process"), folder).run_dir)
    found, expected = run.network().state_dict(), network.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name

"""The methods that teach one network by itself, each as a loop written by hand.

The loops share nothing with the engine but the batches, their augmentation and initial weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import backbones
from engine.data import Augmenter, Batch, Facts, open_source
from engine.knowledge.mixing import draw_mixing
from engine.recipes import Recipe
from engine.streams import seeded

CPU = torch.device("cpu")
STEPS = 4


def data_of(recipe: Recipe) -> tuple[Facts, list[Batch]]:
    """Return what is known of the data, and the batches of the whole run."""
    source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
    assert source.steps_per_epoch() == STEPS
    batches = [source.batch(epoch, step) for epoch in range(recipe.epochs) for step in range(STEPS)]
    source.close()
    return source.facts, batches


class Loop:
    """A network that is trained by hand."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.facts, self.batches = data_of(recipe)
        self.network = backbones.build(recipe.backbone, 10, (1, 8, 8), recipe.seed)
        self._augmenter = Augmenter(recipe.data.augmentation, self.facts, recipe.seed, CPU)
        self.others: list[nn.Module] = []

    def pixels(self, batch: Batch) -> Tensor:
        return self._augmenter.training_pixels(batch)

    def predict(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels - self.facts.mean[0]) / self.facts.std[0])
        return logits

    def run(self, loss_of: Callable[[Batch, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """Take the steps of the run by the loss of each batch, its pixels and its labels."""
        parameters = [each for module in (self.network, *self.others) for each in module.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for batch in self.batches:
            optimizer.zero_grad()
            loss_of(batch, self.pixels(batch), torch.from_numpy(batch.labels)).backward()
            optimizer.step()
        return self.network.state_dict()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    log_student = (student / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(log_student, (teacher / temperature).softmax(dim=1), reduction="batchmean")


def label_smoothing(loop: Loop) -> dict[str, Tensor]:
    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        return soft_cross_entropy(loop.predict(pixels), 0.8 * F.one_hot(labels, 10) + 0.02)

    return loop.run(loss_of)


def data_mix(loop: Loop) -> dict[str, Tensor]:
    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        targets = F.one_hot(labels, 10).float()
        key = (loop.recipe.seed, "segment0", "mixing", batch.epoch, batch.step)
        mixing = draw_mixing(key, "compound", 0.7, 0.5, 1.0, batch.indices, 8, 8, False)
        # 2 epochs, of which the first half mixes nothing.
        if batch.epoch == 0 or mixing is None:
            return soft_cross_entropy(loop.predict(pixels), targets)
        share = mixing.share[:, None]
        mixed = pixels.clone()
        for row, partner in enumerate(mixing.partner.tolist()):
            if mixing.box is None:
                mixed[row] = mixing.share[row] * pixels[row] + (1 - mixing.share[row]) * pixels[partner]
            else:
                top, bottom, left, right = mixing.box
                mixed[row, :, top:bottom, left:right] = pixels[partner, :, top:bottom, left:right]
        return soft_cross_entropy(loop.predict(mixed), share * targets + (1 - share) * targets[mixing.partner])

    return loop.run(loss_of)


def cs_kd(loop: Loop) -> dict[str, Tensor]:
    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        half = len(labels) // 2
        assert labels[:half].equal(labels[half:])
        logits = loop.predict(pixels[:half])
        with torch.no_grad():
            others = loop.predict(pixels[half:])
        return F.cross_entropy(logits, labels[:half]) + 0.5 * divergence(others, logits, 4.0)

    return loop.run(loss_of)


def ps_kd(loop: Loop) -> dict[str, Tensor]:
    past: dict[int, Tensor] = {}

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        logits = loop.predict(pixels)
        targets = F.one_hot(labels, 10).float()
        if batch.epoch:
            share = 0.8 * (batch.epoch + 1) / 3
            targets = (1 - share) * targets + share * torch.stack([past[index] for index in batch.indices.tolist()])
        for index, row in zip(batch.indices.tolist(), logits.detach().softmax(dim=1), strict=True):
            kept = row.half().float()
            past[index] = kept / kept.sum()
        return soft_cross_entropy(logits, targets)

    return loop.run(loss_of)


def lwr(loop: Loop) -> dict[str, Tensor]:
    said: dict[int, Tensor] = {}
    published: dict[int, Tensor] = {}

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        if batch.step == 0 and batch.epoch in (2, 4):
            published.update(said)
        logits = loop.predict(pixels)
        for index, row in zip(batch.indices.tolist(), logits.detach(), strict=True):
            said[index] = (row - row.max()).half().float()
        past, share = 2 * ((batch.epoch + 1) // 2) / 6 if batch.epoch >= 2 else 0.0, 0.1
        loss = (share + (1 - past) * (1 - share)) * F.cross_entropy(logits, labels)
        if not published:
            return loss
        teacher = torch.stack([published[index] for index in batch.indices.tolist()])
        return loss + past * (1 - share) * divergence(teacher, logits, 5.0)

    return loop.run(loss_of)


def dlb(loop: Loop) -> dict[str, Tensor]:
    return dlb_with(loop, 0.5)


def dlb_with(loop: Loop, weight: float) -> dict[str, Tensor]:
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        half = len(labels) // 2
        logits = loop.predict(pixels[:half])
        previous = kept.pop() if kept else None
        kept.append((pixels[half:], labels[half:], logits.detach()))
        if previous is None:
            return F.cross_entropy(logits, labels[:half])
        again, again_labels, old = previous
        new = loop.predict(again)
        both = F.cross_entropy(torch.cat([new, logits]), torch.cat([again_labels, labels[:half]]))
        return both + weight * divergence(old, new, 3.0)

    return loop.run(loss_of)


def one(loop: Loop) -> dict[str, Tensor]:
    """The last stage of ResNet-14 begins with the sixth of its eight blocks."""
    recipe = loop.recipe
    copies = [backbones.build(recipe.backbone, 10, (1, 8, 8), recipe.seed, peer)[5:] for peer in (1, 2)]
    with seeded(recipe.seed, "segment0", "auxiliary"):
        linear = nn.Linear(4, 3)
    norm = nn.BatchNorm1d(3)
    loop.others = [*copies, linear, norm]

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        shared = loop.network[:5]((pixels - loop.facts.mean[0]) / loop.facts.std[0])
        logits = [last(shared) for last in (loop.network[5:], *copies)]
        gate = nn.ReLU()(norm(linear(shared.mean(dim=(2, 3))))).softmax(dim=1)
        ensemble = sum(gate[:, place, None] * each for place, each in enumerate(logits))
        assert isinstance(ensemble, Tensor)
        loss = sum(F.cross_entropy(each, labels) for each in [*logits, ensemble])
        ramp = torch.exp(torch.tensor(-5 * (1 - batch.epoch / 2) ** 2))
        teacher = (ensemble.detach() / 3).softmax(dim=1) + 1e-7
        for each in logits:
            student = (each / 3).log_softmax(dim=1)
            loss = loss + 0.5 * ramp * 9 * F.kl_div(student, teacher, reduction="batchmean")
        assert isinstance(loss, Tensor)
        return loss

    return loop.run(loss_of)


LOOPS: dict[str, tuple[Callable[[Loop], dict[str, Tensor]], int, dict[str, Any]]] = {
    "label_smoothing": (label_smoothing, 2, {"smoothing": 0.2}),
    "data_mix": (
        data_mix,
        2,
        {"style": "compound", "mixing_probability": 0.7, "mixup_alpha": 0.5, "warmup_fraction": 0.5},
    ),
    "one": (one, 2, {"weight": 0.5, "ramp_epochs": 2}),
    "cs_kd": (cs_kd, 2, {"weight": 0.5}),
    "ps_kd": (ps_kd, 3, {}),
    "lwr": (lwr, 5, {"interval": 2, "horizon": 6}),
    "dlb": (dlb, 2, {"weight": 0.5}),
}

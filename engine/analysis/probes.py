"""Probes: small networks that learn from frozen features what can still be told from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import backbones
from engine.backbones import feature_layout
from engine.learners import make_optimizer
from engine.learners.recalibration import Recalibration
from engine.objectives import cifar_decoder, enlarged, reconstruction_loss
from engine.recipes import SGD, Backbone
from engine.streams import generator, seeded

BATCH = 128
LEARNING_RATE = 0.1
LEAST_STEPS = 200
"""Of a probe's training, unless its epochs are given: small data sets have few in an epoch."""
DECODER_WIDTH = 64
CLASSIFIER = "resnet32"
_CHANNELS = 16

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of what a probe gives and its targets, a mean over the images: float32 []."""


def reconstruction_probe(feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> nn.Module:
    """Return InfoPro's decoder with 64 channels between its convolutions: [B, *feature_shape] to logits of pixels."""
    return cifar_decoder(feature_shape, image_shape, DECODER_WIDTH)


class LabelProbe(nn.Module):
    """A ResNet-32 on features that are resized to the images, and mapped to 16 channels by a 1x1 convolution.

    About as strong as the networks that are looked at, so that what it finds is more than linear separability.

    Args:
        feature_shape: (C, h, w).
        image_shape: (C, H, W).
        classes: number of them.
        seed: of its initial weights.
    """

    def __init__(
        self, feature_shape: tuple[int, ...], image_shape: tuple[int, int, int], classes: int, seed: int
    ) -> None:
        super().__init__()
        self._size = image_shape[1:]
        self.entry = nn.Conv2d(feature_layout(feature_shape).channels, _CHANNELS, 1)
        self.network = backbones.build(Backbone(name=CLASSIFIER), classes, (_CHANNELS, *self._size), seed)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, classes] of features [B, C, h, w]."""
        logits: Tensor = self.network(self.entry(enlarged(features, self._size)))
        return logits


def trained(
    make: Callable[[], nn.Module],
    features: Tensor,
    targets: Tensor,
    loss: Loss,
    epochs: int,
    seed: int,
) -> nn.Module:
    """Return a probe that has learned, in evaluation mode.

    SGD with momentum 0.9, weight decay 1e-4 and batches of 128; the learning rate goes from 0.1 to 0 as a cosine. In
    the end, statistics of batch norms are measured anew, on all images in an order that is drawn.

    Args:
        make: makes it; draws weights from torch's default generator.
        features: [N, ...], on the device.
        targets: [N, ...].
        loss: of its outputs and targets, a mean.
        epochs: how often it sees each image.
        seed: of weights and order: the same for all features, so that differences are theirs.
    """
    with seeded(seed, "analysis", "probe", device=features.device):
        probe = make().to(features.device).train()
        optimizer = make_optimizer(
            SGD(learning_rate=LEARNING_RATE, momentum=0.9, weight_decay=1e-4), probe.parameters()
        )
        # No last batch of one image, of which batch norm could make nothing.
        size = min(BATCH, len(features))
        steps = max(1, len(features) // size)
        for epoch in range(epochs):
            order = torch.randperm(len(features), generator=generator(seed, "analysis", "probe", epoch))
            order = order.to(features.device)
            for step in range(steps):
                rate = LEARNING_RATE * (1 + math.cos(math.pi * (epoch * steps + step) / (epochs * steps))) / 2
                for group in optimizer.param_groups:
                    group["lr"] = rate
                rows = order[step * size : (step + 1) * size]
                optimizer.zero_grad()
                loss(probe(features[rows]), targets[rows]).backward()
                optimizer.step()
        # Running averages of few steps are far from those of the weights at the end. And sets may be stored class by
        # class: a batch of one class has statistics of its own.
        recalibration = Recalibration(probe)
        order = torch.randperm(len(features), generator=generator(seed, "analysis", "probe", "recalibration"))
        for rows in order.to(features.device).tensor_split(steps):
            recalibration.add(features[rows])
        recalibration.finish()
    return probe.eval()


def epochs_of(asked: int | None, recipe_epochs: int, images: int) -> int:
    """Return for how many epochs a probe learns: a quarter of the training's, at least 200 steps, unless given."""
    if asked is not None:
        return asked
    steps = max(1, images // min(BATCH, images))
    return max(math.ceil(recipe_epochs / 4), math.ceil(LEAST_STEPS / steps))


@torch.no_grad()
def mean_losses(probe: nn.Module, scored: Iterable[tuple[Tensor, Tensor]], losses: Sequence[Loss]) -> list[float]:
    """Return the mean of each loss over all images, of which only one batch need be there at a time.

    Args:
        probe: in evaluation mode.
        scored: batches of features [B, ...] and targets [B, ...].
        losses: of the probe's outputs and the targets.
    """
    totals, images = [0.0] * len(losses), 0
    for features, targets in scored:
        given = probe(features)
        totals = [
            total + float(loss(given, targets)) * len(targets) for total, loss in zip(totals, losses, strict=True)
        ]
        images += len(targets)
    return [total / images for total in totals]


def label_information(
    features: Tensor,
    labels: Tensor,
    scored: Iterable[tuple[Tensor, Tensor]],
    classes: int,
    image_shape: tuple[int, int, int],
    epochs: int,
    seed: int,
) -> tuple[float, float]:
    """Return cross-entropy in nats and accuracy of a label probe.

    ln(classes) minus the cross-entropy stands for I(h; y): 0 for features that say nothing of balanced labels,
    ln(classes) for those that say all.

    Args:
        features: from which it learns, [N, C, h, w].
        labels: theirs, int64 [N].
        scored: on which it is scored: batches of both.
        classes: number of them.
        image_shape: (C, H, W).
        epochs: how often it sees each image.
        seed: of weights and order.
    """
    shape = tuple(features.shape[1:])
    probe = trained(
        lambda: LabelProbe(shape, image_shape, classes, seed), features, labels, F.cross_entropy, epochs, seed
    )
    loss, wrong = mean_losses(
        probe, scored, (F.cross_entropy, lambda given, truth: (given.argmax(1) != truth).float().mean())
    )
    return loss, 1.0 - wrong


def image_information(
    features: Tensor, pixels: Tensor, scored: Iterable[tuple[Tensor, Tensor]], epochs: int, seed: int
) -> tuple[float, float]:
    """Return the binary cross-entropies of a decoder and of the mean training image, nats per pixel value.

    Their difference stands for I(h; x), up to a constant factor: 0 for features that say nothing of the image, the most
    for the image itself.

    Args:
        features: from which the decoder learns, [N, C, h, w].
        pixels: of the same images, float32 [N, C, H, W] in [0, 1].
        scored: on which both are scored: batches of features and pixels.
        epochs: how often the decoder sees each image.
        seed: of weights and order.
    """
    shape, (channels, height, width) = tuple(features.shape[1:]), pixels.shape[1:]
    probe = trained(
        lambda: reconstruction_probe(shape, (channels, height, width)),
        features,
        pixels,
        reconstruction_loss,
        epochs,
        seed,
    )
    mean = pixels.mean(dim=0).clamp(1e-4, 1 - 1e-4)
    rebuilt, constant = mean_losses(
        probe,
        scored,
        (reconstruction_loss, lambda _, truth: F.binary_cross_entropy(mean.expand_as(truth), truth)),
    )
    return rebuilt, constant

"""Information by depth: what probes rebuild of the image, and tell of the label (InfoPro, figures 9 and 10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.depth import Curve, draw_by_depth
from engine.analysis.features import blocks_to, features_behind
from engine.analysis.images import ImageSet, Rows
from engine.analysis.opened import PROBED_IMAGES, OpenedRun
from engine.analysis.probes import epochs_of, image_information, label_information
from engine.backbones import Maps
from engine.tracking.figures import open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBED_BYTES = 4 * 2**30
"""That training images and their features may take: each task on Ray holds its own."""

IMAGE = "image"
"""The part that is the image itself, as networks take it: where the information begins."""


class Information(Analysis):
    """Reconstruction probe and label probe behind every block: stand-ins for I(h, x) and I(h, y).

    The protocol is ours, as the paper's is not published; see `engine.analysis.probes`. Mutual information of a
    deterministic network with continuous inputs is ill-defined: these are lower bounds, up to a constant, and say what
    such a probe finds with its budget. No probe need be worse than one that ignores the features, so what would be
    negative is 0; the losses are as they were found. Blocks that give no maps are left out.
    """

    name = "information"
    version = 2
    trains_probes = True
    title = "What probes find behind each block"
    reading = (
        "Protocol of this engine: InfoPro's decoder with 64 channels and a ResNet-32 learn from frozen features of the "
        f"training images ({PROBED_IMAGES:,} at most, and {PROBED_BYTES >> 30} GiB with their features)"
    )
    columns = {
        "block": "behind which the features are probed; image is what the network takes",
        "depth": "of the block, counted from 1; the image has 0",
        "image_information": "loss of the mean training image minus that of the decoder, nats per pixel value",
        "label_information": "ln(classes) minus the loss of the label probe, nats",
        "reconstruction_loss": "binary cross-entropy of the decoder, nats per pixel value",
        "label_loss": "cross-entropy of the label probe, nats",
        "label_accuracy": "of the label probe",
        "epochs": "for which each probe learned",
        "training_images": "from which each probe learned",
    }

    def refusal(self, opened: OpenedRun) -> str | None:
        """Refuse networks without feature maps, too."""
        reason = super().refusal(opened)
        if reason is not None:
            return reason
        for name in opened.networks:
            if self.parts(opened, name) == (IMAGE,):
                return f"backbone.name={opened.deployed(name).backbone.name} gives no feature maps to be decoded"
        return None

    def parts(self, opened: OpenedRun, network: str) -> tuple[str, ...]:
        """Return the image, and the blocks that give maps."""
        names = list(opened.run.network(network)._modules)
        maps = [isinstance(shape, Maps) for shape in opened.shapes(network)]
        return (IMAGE, *(name for name, fits in zip(names, maps, strict=True) if fits))

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return what the probes found, and how they learned.

        That is ``scores``, float64 [5]: both losses of images, both of labels, accuracy; and, int64 [], ``depth``,
        ``epochs`` and ``images``.
        """
        learned, scored = probed_images(opened, network), opened.images
        features = _features(opened, network, part, learned)
        settings, facts = opened.settings, opened.run.facts
        epochs = epochs_of(settings.probe_epochs, opened.run.recipe.epochs, len(features))
        blocks = nn.Sequential() if part == IMAGE else blocks_to(opened, network, part)[0]
        rebuilt, constant = image_information(
            features, learned.pixels(), _batches(blocks, scored, scored.pixels), epochs, settings.seed
        )
        loss, accuracy = label_information(
            features,
            learned.labels(),
            _batches(blocks, scored, scored.labels),
            facts.num_classes,
            facts.image_shape,
            epochs,
            settings.seed,
        )
        names = [IMAGE, *opened.run.network(network)._modules]
        return {
            "scores": np.array([rebuilt, constant, loss, math.log(facts.num_classes), accuracy]),
            "depth": np.array(names.index(part)),
            "epochs": np.array(epochs),
            "images": np.array(len(features)),
        }

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for the image and for each block."""
        rows = []
        for each in found:
            rebuilt, constant, loss, most, accuracy = map(float, each.arrays["scores"])
            rows.append(
                {
                    **owner(each),
                    "block": each.part,
                    "depth": int(each.arrays["depth"]),
                    "image_information": max(0.0, constant - rebuilt),
                    "label_information": max(0.0, most - loss),
                    "reconstruction_loss": rebuilt,
                    "label_loss": loss,
                    "label_accuracy": accuracy,
                    "epochs": int(each.arrays["epochs"]),
                    "training_images": int(each.arrays["images"]),
                }
            )
        return rows

    def remark(self, found: Sequence[Measured]) -> str:
        """Return for how many epochs the probes learned."""
        epochs = sorted({int(each.arrays["epochs"]) for each in found})
        return f"probes of {' or '.join(map(str, epochs))} epochs"

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw both over depth, a curve for each network."""
        figure = open_figure(12.0, 4.8, title)
        left, right = figure.subplots(1, 2)
        by_label = {
            label: [each for each in found if each.label == label] for label in dict.fromkeys(e.label for e in found)
        }
        for axes, column, words, up in (
            (left, "image_information", "of the image, stand-in for I(h, x)", "nats per pixel value"),
            (right, "label_information", "of the label, stand-in for I(h, y)", "nats"),
        ):
            curves = {label: Curve.of(self.rows(own), column) for label, own in by_label.items()}
            draw_by_depth(axes, curves, up, words)
            axes.set_ylim(bottom=0)
        return figure


def probed_images(opened: OpenedRun, network: str) -> ImageSet:
    """Return the training images from which the probes of a network learn: the same for all of its blocks.

    As many as fit into `PROBED_BYTES` with their features behind the block that gives most, float32.
    """
    image = math.prod(opened.run.facts.image_shape)
    largest = max(image, *(math.prod(shape) for shape in opened.shapes(network) if isinstance(shape, Maps)))
    return opened.probed(max(1, min(PROBED_IMAGES, PROBED_BYTES // (4 * (image + largest)))))


def _features(opened: OpenedRun, network: str, part: str, images: ImageSet) -> Tensor:
    """Return the features of some images behind a block, or what the network takes."""
    if part == IMAGE:
        return images.inputs()
    return features_behind(opened, network, part, images, lambda features, _: features)


@torch.no_grad()
def _batches(
    blocks: nn.Sequential, images: ImageSet, targets: Callable[[Rows], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features behind some blocks and what is told from them: those of all images may take any memory."""
    for rows in images.slices():
        yield blocks(images.inputs(rows)), targets(rows)

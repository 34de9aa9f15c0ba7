"""Predictions for pixels: some of each image that has a label map, drawn by the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.data import Batch
from engine.errors import RunError
from engine.objectives import enlarged
from engine.streams import generator
from engine.tasks.segmentation_score import IGNORED

if TYPE_CHECKING:
    from engine.analysis.opened import OpenedRun

PIXELS = 100
"""Labelled pixels that are looked at of each image; all where it has no more."""


def drawn_pixels(labels: np.ndarray, seed: int, place: int) -> np.ndarray:
    """Return the labelled pixels of an image that are looked at, as positions in its flattened map, ascending.

    Args:
        labels: uint8 [H, W]; IGNORED where there is none.
        seed: of the draw.
        place: of the image in its split.
    """
    known = np.flatnonzero(labels.ravel() != IGNORED)
    order = torch.randperm(len(known), generator=generator(seed, "analysis", "pixels", place)).numpy()
    pixels: np.ndarray = np.sort(known[order[:PIXELS]])
    return pixels


@torch.no_grad()
def pixel_predictions(opened: OpenedRun, network: str) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, float32 [M, classes], and labels, int64 [M], of the pixels that are looked at.

    Logits are enlarged to the size of the image, as an evaluation at one scale does it. One image is computed at a
    time, as sizes may differ.

    Raises:
        RunError: no pixel of these images has a label.
    """
    module = opened.network(network)
    logits, labels = [], []
    for place in opened.places:
        batch = one_image(opened, int(place))
        pixels = drawn_pixels(batch.labels[0], opened.settings.seed, int(place))
        size = batch.labels.shape[1:]
        found = enlarged(module(opened.inputs_of(batch)).float(), (int(size[0]), int(size[1])))[0].flatten(1)
        logits.append(found[:, torch.from_numpy(pixels).to(found.device)].T.cpu())
        labels.append(batch.labels[0].ravel()[pixels].astype(np.int64))
    if not sum(map(len, labels)):
        raise RunError(
            f"--split {opened.settings.split}: no pixel of the {len(labels)} images of {opened.run.path} that are "
            "looked at has a label; give more --images, or other --positions"
        )
    return torch.cat(logits).numpy(), np.concatenate(labels)


def one_image(opened: OpenedRun, place: int) -> Batch:
    """Return an image of the split that is looked at, with its label map, uint8 [1, H, W]."""
    return opened.source.evaluation_images(opened.settings.split, np.array([place]))

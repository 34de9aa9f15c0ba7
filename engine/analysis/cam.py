"""Grad-CAM: where in an image the evidence for a prediction lies (Selvaraju et al. 2017), by each segment's head."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.features import segments_before, up_to
from engine.analysis.opened import OpenedRun
from engine.analysis.similarity import correlation
from engine.backbones import FeatureLayout, Maps
from engine.objectives import Objective
from engine.tracking.figures import INK, TEXT_SIZE, open_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6
"""Images that are looked at unless positions are given: at equal distances among those that were drawn."""
_LETTERS_ACROSS = 22  # Of a label below a map.


class Cam(Analysis):
    """Grad-CAM of some images: of the whole network, and of each segment by its own head.

    A segment's map is that of the features that it hands on, and of the class that its own head predicts. A network's
    is that of the last block that gives maps of several positions, and of the class that the network predicts.
    """

    name = "cam"
    title = "Grad-CAM: evidence for the predicted class"
    reading = "The lighter, the more evidence; line: half of the maximum; above: predicted class and its probability"
    columns = {
        "head": "the segment whose head predicts; empty for the network",
        "position": "of the image in its split",
        "label": "its class",
        "predicted": "the class that the head predicts, whose evidence is mapped",
        "probability": "of that class",
        "area": "share of the image in which the map is above half of its maximum",
        "centre_down": "centre of mass of the map, 0 at the top and 1 at the bottom; not a number of an empty map",
        "centre_across": "the same, 0 at the left and 1 at the right",
        "match": "Pearson's correlation with the map of the whole network; not a number where one is constant",
    }

    def refusal(self, opened: OpenedRun) -> str | None:
        """Refuse networks without feature maps, too."""
        reason = super().refusal(opened)
        if reason is not None:
            return reason
        for name in opened.networks:
            if not any(map(_is_spread, opened.shapes(name))):
                return f"backbone.name={opened.deployed(name).backbone.name} gives no feature maps of several positions"
        return None

    def parts(self, opened: OpenedRun, network: str) -> tuple[str, ...]:
        """Return the segments that hand on maps and predict a class, and the network."""
        heads = segments_before(opened, network)
        spread = (each for each in heads if _is_spread(opened.shape_behind(network, each)))
        return (*(each for each in spread if opened.predicts(network, each)), "")

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return ``maps`` [S, h, w], float32 as the features are, and what they are maps of.

        Besides ``images`` uint8 [S, C, H, W], ``positions``, ``labels`` and ``predicted`` int64 [S], and
        ``probability`` float32 [S].
        """
        places = _shown(opened)
        arrays: dict[str, list[np.ndarray]] = {"maps": [], "predicted": [], "probability": []}
        before, behind = _cut(opened, network, part)
        for place in places:
            with torch.no_grad():
                features = before(opened.images.inputs(slice(place, place + 1)))
            maps, logits = grad_cam(features, behind)
            chances = logits.softmax(dim=1)
            for name, values in zip(arrays, (maps, chances.argmax(1), chances.amax(1)), strict=True):
                arrays[name].append(values.cpu().numpy())
        batch = opened.images.batch
        return {
            **{name: np.concatenate(values) for name, values in arrays.items()},
            "images": batch.images[places],
            "labels": batch.labels[places],
            "positions": opened.images.places[places],
        }

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each image and head."""
        rows = []
        for each, whole in _with_network(found):
            arrays = each.arrays
            size = arrays["images"].shape[2:]
            maps, references = enlarged(arrays["maps"], size), enlarged(whole.arrays["maps"], size)
            for place, (heat, reference) in enumerate(zip(maps, references, strict=True)):
                down, across = _centre(heat)
                rows.append(
                    {
                        **owner(each),
                        "head": each.part,
                        "position": int(arrays["positions"][place]),
                        "label": _class(each, arrays["labels"][place]),
                        "predicted": _class(each, arrays["predicted"][place]),
                        "probability": float(arrays["probability"][place]),
                        "area": float((heat > 0.5).mean()),
                        "centre_down": down,
                        "centre_across": across,
                        "match": correlation(heat, reference),
                    }
                )
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw a row for each image: the image, then the map of each head above it, lighter where it is higher."""
        images, labels = found[0].arrays["images"], found[0].arrays["labels"]
        figure = open_figure(1.5 * (1 + len(found)) + 0.4, 1.0 + 1.65 * len(images), title)
        panels = figure.subplots(len(images), 1 + len(found), squeeze=False)
        for place, row in enumerate(panels):
            _show(row[0], images[place], None, f"class {_class(found[0], labels[place])}")
            for axes, each in zip(row[1:], found, strict=True):
                heat = enlarged(each.arrays["maps"][place : place + 1], images.shape[2:])[0]
                guess, chance = each.arrays["predicted"][place], each.arrays["probability"][place]
                _show(axes, images[place], heat, f"{_class(each, guess)} ({chance:.2f})")
        for axes, each in zip(panels[-1][1:], found, strict=True):
            words = f"{textwrap.fill(each.label, _LETTERS_ACROSS)}\n{each.part or 'whole network'}"
            axes.set_xlabel(words, fontsize=TEXT_SIZE - 2, color=INK, parse_math=False)
        panels[-1][0].set_xlabel("image", fontsize=TEXT_SIZE - 2, color=INK)
        return figure


def grad_cam(features: Tensor, behind: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the maps of the predicted classes, ReLU(sum_k w_k A_k), w_k the mean of dz_c / dA_k over positions.

    Args:
        features: A, float32 [B, K, h, w].
        behind: gives class logits [B, classes] for them.

    Returns:
        maps, float32 [B, h, w], and the logits, without a graph.
    """
    features = features.detach().requires_grad_()
    # A copy: what comes first behind it may work in place.
    logits = behind(features.clone())
    chosen = logits.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
    (gradients,) = torch.autograd.grad(chosen, features)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * features).sum(dim=1).relu().detach(), logits.detach()


def enlarged(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return maps [S, h, w] as large as their images, bilinearly, each from 0 to 1; a constant one is all 0."""
    large = F.interpolate(torch.tensor(maps)[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]
    low, high = large.amin(dim=(1, 2), keepdim=True), large.amax(dim=(1, 2), keepdim=True)
    result: np.ndarray = torch.where(high > low, (large - low) / (high - low).clamp_min(1e-30), 0.0).numpy()
    return result


def _is_spread(layout: FeatureLayout) -> bool:
    return isinstance(layout, Maps) and layout.positions > 1


def _cut(opened: OpenedRun, network: str, part: str) -> tuple[nn.Module, nn.Module]:
    """Return what gives the features, and what gives logits for them."""
    if not part:
        whole = opened.network(network)
        shapes = opened.shapes(network)
        stop = max(stop for stop, shape in enumerate(shapes, start=1) if _is_spread(shape))
        return whole[:stop], whole[stop:]
    before, last = up_to(opened, network, part)
    return nn.Sequential(*(each.body for each in (*before, last))), _Predicting(last.objective)


class _Predicting(nn.Module):
    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, features: Tensor) -> Tensor:
        logits = self.objective.predict(features)
        assert logits is not None, "a part with a map predicts a class"
        return logits


def _shown(opened: OpenedRun) -> list[int]:
    count = len(opened.images.batch.labels)
    shown = count if opened.settings.positions is not None else min(SHOWN, count)
    return [round(place) for place in np.linspace(0, count - 1, shown)]


def _with_network(found: Sequence[Measured]) -> Iterator[tuple[Measured, Measured]]:
    """Yield each with what was measured of its whole network."""
    whole = {each.label: each for each in found if not each.part}
    for each in found:
        yield each, whole[each.label]


def _class(measured: Measured, label: int) -> str:
    return measured.class_names[int(label)]


def _centre(heat: np.ndarray) -> tuple[float, float]:
    total = float(heat.sum())
    if total == 0.0:
        return float("nan"), float("nan")
    down, across = ((np.arange(length) + 0.5) / length for length in heat.shape)
    return float((heat.sum(axis=1) * down).sum() / total), float((heat.sum(axis=0) * across).sum() / total)


def _show(axes: Axes, image: np.ndarray, heat: np.ndarray | None, words: str) -> None:
    shown = image.transpose(1, 2, 0) if image.shape[0] == 3 else image.mean(axis=0)
    axes.imshow(shown if heat is None or shown.ndim == 2 else shown.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    if heat is not None:
        # Of growing lightness, so that it is read in black and white, too, where the line helps.
        axes.imshow(heat, cmap="inferno", vmin=0.0, vmax=1.0, alpha=0.6)
        if heat.max() > 0.5:
            axes.contour(heat, levels=[0.5], colors="white", linewidths=1.0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(words, fontsize=TEXT_SIZE - 2, color=INK, pad=2, parse_math=False)

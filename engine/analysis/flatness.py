"""Flatness: loss against noise on the weights (Zhang et al. 2018, Deep Mutual Learning, figure 4), and curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.drawing import legend, styles
from engine.analysis.images import ImageSet
from engine.analysis.opened import OpenedRun
from engine.streams import generator
from engine.tracking.figures import dress, open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 5
DEVIATIONS: Mapping[str, tuple[float, ...]] = {
    "absolute": (0.0, 0.005, 0.01, 0.02, 0.03, 0.05),
    "filter_normalised": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
}
"""Standard deviations of the noise, by kind; those of the paper are not printed."""

NOISE, CURVATURE = "noise", "curvature"
_ITERATIONS = 100
_TOLERANCE = 1e-4


class Flatness(Analysis):
    """Loss against noise on the weights, absolute and filter-normalised, and the largest eigenvalue of the Hessian.

    Absolute noise is Gaussian on every parameter. ReLU networks with batch norm do not change when filters are scaled,
    so it says as much of the length of the weights, which stands beside it, as of the minimum. Filter-normalised noise
    (Li et al. 2018) has for each filter the length of that filter times the deviation, and none for biases and batch
    norms. Networks whose parameters have equal names and shapes get equal draws. Statistics of batch norms stay as they
    are; the loss is the cross-entropy alone.
    """

    name = "flatness"
    title = "Loss against noise on the weights"
    reading = f"Mean and standard deviation over {DRAWS} draws, equal for equal networks; |w|: length of all weights"
    columns = {
        "noise": "absolute: on every parameter; filter_normalised: relative to the length of each filter",
        "deviation": "of the noise: in units of the weights, or of the length of the filter",
        "loss": "mean cross-entropy, nats, mean over the draws",
        "loss_deviation": "its standard deviation over the draws",
        "accuracy": "mean over the draws",
        "weight_norm": "Euclidean length of all parameters",
        "largest_eigenvalue": "of the Hessian of the loss, by power iteration",
    }

    def parts(self, opened: OpenedRun, network: str) -> tuple[str, ...]:
        """Return what is measured by itself: noise of both kinds, and curvature."""
        return (NOISE, CURVATURE)

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return losses and accuracies [deviations, draws] by kind and the ``norm``; or the largest ``eigenvalue``."""
        # Also a weight that is frozen in training is one that the loss depends on.
        module = opened.network(network).requires_grad_()
        if part == CURVATURE:
            product = hessian_product(module, opened.images)
            size = sum(each.numel() for each in module.parameters())
            start = torch.randn(size, generator=generator(opened.settings.seed, "analysis", CURVATURE))
            return {"eigenvalue": np.array(largest_eigenvalue(product, start.to(opened.device)))}
        length = torch.stack([each.detach().double().square().sum() for each in module.parameters()]).sum().sqrt()
        arrays = {"norm": np.array(float(length))}
        for kind, deviations in DEVIATIONS.items():
            scores = np.zeros((len(deviations), DRAWS, 2))
            for draw in range(DRAWS):
                noise = drawn_noise(module, kind, opened.settings.seed, draw)
                for place, deviation in enumerate(deviations):
                    scores[place, draw] = _scored_with(module, noise, deviation, opened.images)
            arrays[f"{kind}_loss"], arrays[f"{kind}_accuracy"] = scores[..., 0], scores[..., 1]
        return arrays

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each network, kind of noise and deviation."""
        rows = []
        curved = {each.label: float(each.arrays["eigenvalue"]) for each in found if each.part == CURVATURE}
        for each in (each for each in found if each.part == NOISE):
            for kind, deviations in DEVIATIONS.items():
                losses, accuracies = each.arrays[f"{kind}_loss"], each.arrays[f"{kind}_accuracy"]
                for deviation, loss, accuracy in zip(deviations, losses, accuracies, strict=True):
                    rows.append(
                        {
                            **owner(each),
                            "noise": kind,
                            "deviation": deviation,
                            "loss": float(loss.mean()),
                            "loss_deviation": float(loss.std(ddof=1)),
                            "accuracy": float(accuracy.mean()),
                            "weight_norm": float(each.arrays["norm"]),
                            "largest_eigenvalue": curved[each.label],
                        }
                    )
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw the loss over the deviation, for each kind of noise."""
        figure = open_figure(11.0, 4.6, title)
        drawn = styles(list(dict.fromkeys(each.label for each in found)))
        curved = {each.label: float(each.arrays["eigenvalue"]) for each in found if each.part == CURVATURE}
        for axes, (kind, deviations) in zip(figure.subplots(1, 2), DEVIATIONS.items(), strict=True):
            for each in (each for each in found if each.part == NOISE):
                losses, norm = each.arrays[f"{kind}_loss"], float(each.arrays["norm"])
                words = f"{each.label}: |w| = {norm:.3g}, largest eigenvalue {curved[each.label]:.3g}"
                spread = losses.std(axis=1, ddof=1)
                style = drawn[each.label].line()
                axes.errorbar(deviations, losses.mean(axis=1), spread, label=words, capsize=2, elinewidth=0.8, **style)
            unit = "weights" if kind == "absolute" else "length of the filter"
            dress(
                axes,
                f"{kind.replace('_', '-')} noise",
                f"deviation of the noise (in units of the {unit})",
                "loss (nats)",
            )
            legend(axes)
        return figure


def drawn_noise(module: nn.Module, kind: str, seed: int, draw: int) -> list[Tensor]:
    """Return noise of deviation 1 for each parameter; parameters of equal name and shape get equal numbers.

    Args:
        module: whose parameters.
        kind: one of `DEVIATIONS`.
        seed: of the analysis.
        draw: number of the draw.
    """
    noise = []
    for name, weight in module.named_parameters():
        each = torch.randn(weight.shape, generator=generator(seed, "analysis", "noise", draw, name)).to(weight.device)
        if kind == "filter_normalised":
            if weight.dim() < 2:
                each = torch.zeros_like(weight)
            else:
                axes = tuple(range(1, weight.dim()))
                own, drawn = (torch.linalg.vector_norm(of, dim=axes, keepdim=True) for of in (weight.detach(), each))
                lengths = own / drawn
                each = each * lengths
        noise.append(each)
    return noise


@torch.no_grad()
def _scored_with(module: nn.Module, noise: Sequence[Tensor], deviation: float, images: ImageSet) -> tuple[float, float]:
    """Return loss and accuracy with noise on the weights, which are put back."""
    weights = list(module.parameters())
    before = [each.clone() for each in weights]
    for weight, each in zip(weights, noise, strict=True):
        weight.add_(each, alpha=deviation)
    try:
        loss, right = 0.0, 0.0
        for rows in images.slices():
            logits, labels = module(images.inputs(rows)).double(), images.labels(rows)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += float((logits.argmax(1) == labels).sum())
    finally:
        for weight, each in zip(weights, before, strict=True):
            weight.copy_(each)
    return loss / len(images.places), right / len(images.places)


def hessian_product(module: nn.Module, images: ImageSet) -> Callable[[Tensor], Tensor]:
    """Return what multiplies a vector [parameters] by the Hessian of the mean cross-entropy over some images."""
    weights = list(module.parameters())

    # The other kernels of attention have no second derivative.
    @sdpa_kernel(SDPBackend.MATH)
    def product(vector: Tensor) -> Tensor:
        pieces = [
            part.view_as(each) for part, each in zip(vector.split([w.numel() for w in weights]), weights, strict=True)
        ]
        total = torch.zeros_like(vector)
        for rows in images.slices():
            loss = F.cross_entropy(module(images.inputs(rows)), images.labels(rows), reduction="sum")
            gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            along = torch.stack([(each * piece).sum() for each, piece in zip(gradients, pieces, strict=True)]).sum()
            second = torch.autograd.grad(along, weights, materialize_grads=True)
            total += torch.cat([each.flatten() for each in second])
        return total / len(images.places)

    return product


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """Return the largest eigenvalue of a symmetric matrix, by power iteration.

    That finds the eigenvalue that is largest in size. Where it is negative, the matrix is shifted by it, so that none
    is, and the iteration is run again.

    Args:
        product: multiplies a vector by the matrix.
        start: any vector that is not orthogonal to what is looked for, as a random one is not.
    """
    found = _largest_in_size(product, start)
    if found >= 0.0:
        return found
    return _largest_in_size(lambda vector: product(vector) - found * vector, start) + found


def _largest_in_size(product: Callable[[Tensor], Tensor], start: Tensor) -> float:
    vector, value = start / start.norm(), 0.0
    for _ in range(_ITERATIONS):
        image = product(vector)
        before, value = value, float(vector @ image)
        length = float(image.norm())
        if length == 0.0 or abs(value - before) <= _TOLERANCE * abs(value):
            break
        vector = image / length
    return value

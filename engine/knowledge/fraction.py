"""Mixed knowledge fraction: what a prediction on a mixture of two images says about each of them.

Tang, Ye, Lin and Chen (Enhanced Residual Networks via Mixed Knowledge Fraction) take the prediction m on an image with
share l of image a and 1 - l of image b for m = l a + (1 - l) b, and ask for the a and b that satisfy this and are
nearest to the knowledge Ka and Kb that is stored of the two:

    minimise l ||a - Ka||^2 + (1 - l) ||b - Kb||^2   subject to   l a + (1 - l) b = m,   a and b on the simplex.

The program as the paper prints it leaves the coupling l a + (1 - l) b = m out; its solution would be (Ka, Kb). With the
residual r = m - l Ka - (1 - l) Kb, and without the simplex, the solution is a = Ka + r, b = Kb + r. With it, putting
b = (m - l a) / (1 - l) into the objective leaves l / (1 - l) ||a - (Ka + r)||^2 + const, and into the constraints
leaves 0 <= a <= m / l, sum(a) = 1: one projection onto a capped simplex per row. a = b = m is always feasible. Rounding
in a enters b times l / (1 - l), so the image with the smaller share is solved for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.knowledge.projection import project_onto_capped_simplex
from engine.recipes import Fraction

ALONE = 1e-3
"""An image with a share of at most this is not there: the prediction is the other's, as it is."""

LINEAR_SHARES = (0.05, 0.95)
"""Shares between which the unbounded linear rule, which divides by them, is used at all."""


@dataclass(frozen=True)
class Estimates:
    """What is taken to be the prediction on each of the two images of a mixture, and how much it counts.

    Attributes:
        first: of the first image, ``[B, C]``, float32, or float64 if the prediction on the mixture is.
        second: of the second image, like ``first``.
        first_weight: ``[B]``, dtype as ``first``: the first image's share, or 0 where nothing is learned about it.
            Rows of ``first`` with a weight above 0 are finite; others may be anything.
        second_weight: the same for the second image.
    """

    first: Tensor
    second: Tensor
    first_weight: Tensor
    second_weight: Tensor


def split_knowledge(mixed: Tensor, first: Tensor, second: Tensor, share: Tensor, rule: Fraction) -> Estimates:
    """Return estimates of the predictions on both images of each mixture.

    With m, Ka, Kb, l and r as in the head of this file, the rules are:

    - ``keep``: Ka and Kb, and nothing is ever learned;
    - ``none``: m for the image with the larger share only (the paper's "No OPT"; the first if they are equal);
    - ``linear``: (m - (1 - l) Kb) / l and (m - l Ka) / (1 - l), which may be negative (OPT2 as printed); only where
      l is between 0.05 and 0.95;
    - ``linear_clipped``: the same with negative numbers set to 0, divided by the sum;
    - ``linear_clipped_heavy``: that, for the image with the larger share only;
    - ``shared``: Ka + r and Kb + r, which may be negative;
    - ``shared_clipped``: the same with negative numbers set to 0, divided by the sum;
    - ``exact``: the solution of the program above (OPT1).

    A row teaches nothing if Ka or Kb is not known or m is not finite. Where a share is within 1e-3 of 1, though, m is
    that image's prediction bit by bit, whatever is known, and the other image's weight is 0 (not for ``keep``).

    Args:
        mixed: m, ``[B, C]``, the softmax output on the mixtures; no gradient flows into it.
        first: Ka, ``[B, C]``, probabilities; rows of NaN where nothing is known.
        second: Kb, like ``first``.
        share: l of the first image, ``[B]``, from 0 to 1.
        rule: which one.

    Returns:
        The estimates, on the device of ``mixed``, calculated in float32, or in float64 if ``mixed`` is float64. No
        operation waits for a GPU.
    """
    dtype = torch.float64 if mixed.dtype == torch.float64 else torch.float32
    mixed, first, second, share = (each.detach().to(dtype) for each in (mixed, first, second, share))
    if rule == "keep":
        nothing = torch.zeros_like(share)
        return Estimates(first, second, nothing, nothing)
    first_present, second_present = share > ALONE, share < 1 - ALONE
    both_present = first_present & second_present
    # One sum tells of a whole row whether it is finite: every further operation is a kernel on a GPU.
    bases = torch.where(both_present, first.sum(dim=1) + second.sum(dim=1), 0.0)
    usable = (mixed.sum(dim=1) + bases).abs() < torch.inf
    split = both_present & usable
    first_estimate, second_estimate = _estimates(mixed, first, second, share, rule)
    if rule in ("none", "linear_clipped_heavy"):
        first_present, second_present = share >= 0.5, share < 0.5
    elif rule == "linear":
        usable = usable & (~both_present | ((share >= LINEAR_SHARES[0]) & (share <= LINEAR_SHARES[1])))
    rows = split.to(dtype).unsqueeze(1)
    return Estimates(
        _choose(rows, first_estimate.nan_to_num(0.0), mixed),
        _choose(rows, second_estimate.nan_to_num(0.0), mixed),
        share * (usable & first_present),
        (1 - share) * (usable & second_present),
    )


def _choose(rows: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """Return ``chosen`` where ``rows``, ``[B, 1]``, is 1 and ``other`` where it is 0, bit by bit; all must be finite.

    Five times as fast as ``torch.where`` on a CPU, as booleans are slow there.
    """
    return torch.lerp(other, chosen, rows)


def _estimates(mixed: Tensor, first: Tensor, second: Tensor, share: Tensor, rule: Fraction) -> tuple[Tensor, Tensor]:
    """Return estimates of both images; rows that are not to be split are without meaning, and may be NaN."""
    if rule == "none":
        return mixed, mixed
    # Rows of images that are alone must not divide by 0 on the way.
    share = share.clamp(ALONE, 1 - ALONE).unsqueeze(1)
    if rule == "exact":
        return _exact(mixed, first, second, share)
    rest = 1 - share
    if rule in ("shared", "shared_clipped"):
        residual = torch.addcmul(mixed, share, first, value=-1).addcmul_(rest, second, value=-1)
        estimates = first + residual, second + residual
    else:
        estimates = (
            torch.addcmul(mixed, rest, second, value=-1).div_(share),
            torch.addcmul(mixed, share, first, value=-1).div_(rest),
        )
    if rule in ("linear", "shared"):
        return estimates
    return _on_simplex(estimates[0]), _on_simplex(estimates[1])


def _on_simplex(values: Tensor) -> Tensor:
    """Return values with negative ones set to 0, divided by their sum, in place."""
    values.clamp_(min=0)
    return values.div_(values.sum(dim=1, keepdim=True))


def _exact(mixed: Tensor, first: Tensor, second: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    # Feasible only if m itself is on the simplex to the last digit.
    mixed = _on_simplex(mixed.clone())
    first_is_light = (share <= 0.5).to(share.dtype)
    light_share = torch.minimum(share, 1 - share)
    heavy_share = 1 - light_share
    # K_light + r = m + heavy_share (K_light - K_heavy).
    points = torch.addcmul(mixed, first - second, heavy_share * (2 * first_is_light - 1))
    # A row of NaN would not let the projection end early.
    light = project_onto_capped_simplex(points.nan_to_num_(0.0), mixed / light_share)
    heavy = mixed.addcmul_(light, light_share, value=-1).div_(heavy_share).clamp_(min=0)
    return _choose(first_is_light, light, heavy), _choose(first_is_light, heavy, light)

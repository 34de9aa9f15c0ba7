"""Fraction loss: how near the rules of mixed knowledge fraction come to predictions on the unmixed images.

Tang et al. (Enhanced Residual Networks via Mixed Knowledge Fraction), figure 5. The measure of estimates a^, b^ of the
true predictions a, b is their fraction loss l ||a^ - a||^2 + (1 - l) ||b^ - b||^2. It has two causes, each of which is
measured without the other: stored bases that are not the truth, and predictions on mixtures that are not mixtures of
predictions.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from engine.data import on_device
from engine.knowledge.fraction import LINEAR_SHARES, split_knowledge
from engine.recipes import Fraction


def fraction_losses(
    mixed: Tensor,
    first: Tensor,
    second: Tensor,
    true_first: Tensor,
    true_second: Tensor,
    share: Tensor,
    random_numbers: torch.Generator,
) -> dict[str, float]:
    """Return the fraction loss of every rule, and what causes it, as means over the rows with both bases known.

    Of an image that a rule learns nothing about in a row, the estimate is the base, which stays as it is.

    Args:
        mixed: the softmax output on the mixtures, ``[B, C]``.
        first: the stored knowledge of the first images, ``[B, C]``; rows of NaN where nothing is known.
        second: the same of the second images.
        true_first: the softmax output on the unmixed first images, by the same network with the same weights.
        true_second: the same of the second images.
        share: of the first image, ``[B]``.
        random_numbers: the only source of the draws for ``random``; on any device.

    Returns:
        For each rule of ``split_knowledge`` the loss as ``RULE``, the loss with the exact mixture of the truths in
        place of ``mixed`` as ``RULE/bases``, and the loss with the truths for bases as ``RULE/model``; as ``random``
        that of points drawn uniformly on the simplex. ``model_error``: ||m - l a - (1 - l) b||^2. ``base_error``:
        the loss of the bases themselves. ``negative_share``: share of negative numbers among the estimates of
        ``linear``, where it is used. All are Python numbers, which a GPU is waited for; empty if no row counts.
    """
    rows = (first.sum(dim=1) + second.sum(dim=1)).isfinite().nonzero().squeeze(1)
    if len(rows) == 0:
        return {}
    dtype = torch.float64 if mixed.dtype == torch.float64 else torch.float32
    mixed, first, second, true_first, true_second, share = (
        each.detach()[rows].to(dtype) for each in (mixed, first, second, true_first, true_second, share)
    )

    def loss(first_estimate: Tensor, second_estimate: Tensor) -> Tensor:
        errors = (first_estimate - true_first).square().sum(dim=1), (second_estimate - true_second).square().sum(dim=1)
        return (share * errors[0] + (1 - share) * errors[1]).mean()

    def loss_of(rule: Fraction, mixed: Tensor, first: Tensor, second: Tensor) -> Tensor:
        found = split_knowledge(mixed, first, second, share, rule)
        return loss(
            torch.where(found.first_weight.unsqueeze(1) > 0, found.first, first),
            torch.where(found.second_weight.unsqueeze(1) > 0, found.second, second),
        )

    mixture = torch.lerp(true_second, true_first, share.unsqueeze(1))
    drawn = torch.empty((2, *mixed.shape), dtype=dtype, device=random_numbers.device)
    drawn.exponential_(generator=random_numbers)
    drawn = on_device(drawn.div_(drawn.sum(dim=2, keepdim=True)), mixed.device)
    measured = {
        "random": loss(drawn[0], drawn[1]),
        "model_error": (mixed - mixture).square().sum(dim=1).mean(),
        "base_error": loss(first, second),
        "negative_share": _negative_share(mixed, first, second, share),
    }
    for rule in get_args(Fraction):
        measured[rule] = loss_of(rule, mixed, first, second)
        measured[f"{rule}/bases"] = loss_of(rule, mixture, first, second)
        measured[f"{rule}/model"] = loss_of(rule, mixed, true_first, true_second)
    return dict(zip(measured, torch.stack(list(measured.values())).tolist(), strict=True))


def _negative_share(mixed: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    found = split_knowledge(mixed, first, second, share, "linear")
    used = ((share >= LINEAR_SHARES[0]) & (share <= LINEAR_SHARES[1])).to(mixed.dtype)
    negative = (found.first < 0).to(mixed.dtype).mean(dim=1) + (found.second < 0).to(mixed.dtype).mean(dim=1)
    return (used * negative).sum() / (2 * used.sum()).clamp(min=1)

"""Mixing of a batch's images, by pairs: Mixup, CutMix, or either in turn.

Zhang et al. 2018 (mixup: Beyond Empirical Risk Minimization) blend two images; Yun et al. 2019 (CutMix) paste an area
of one into the other. Tang et al. (Enhanced Residual Networks via Mixed Knowledge Fraction) choose one of the two for
each batch with equal chance, and call it Compound DataMix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.data import on_device
from engine.recipes import MixingStyle
from engine.streams import generator, stream_seed


@dataclass(frozen=True)
class Mixing:
    """How the n images that a step trains on are made; tensors on the CPU.

    Attributes:
        partner: int64 ``[n]``, row of the batch that is the second image of each; the first image of row i is row i.
        share: float32 ``[n]``, the first image's share lambda of the blend (Mixup) or of the pixels (CutMix): one
            number for the whole batch, except that it is 1 where a row stays as it is.
        box: top, bottom, left and right edge of the area that comes from the second image; None for Mixup.
    """

    partner: Tensor
    share: Tensor
    box: tuple[int, int, int, int] | None


def draw_mixing(
    key: tuple[int | str, ...],
    style: MixingStyle,
    probability: float,
    mixup_alpha: float,
    cutmix_alpha: float,
    indices: np.ndarray,
    height: int,
    width: int,
    second_batch: bool,
) -> Mixing | None:
    """Return how a batch is mixed, or None if it is not: a pure function of the arguments.

    Within one batch, images are paired by a random cyclic shift of a random permutation, so that each is once a first
    and once a second image and none its own partner. Rows of which both images are the same one by ``indices`` stay as
    they are. Mixup's lambda is drawn from Beta(mixup_alpha, mixup_alpha). CutMix draws one from Beta(cutmix_alpha,
    cutmix_alpha), cuts a box of sqrt(1 - lambda) times the sides around a uniform pixel, rounded down to an even number
    of pixels as in the authors' code, clips it to the image, and takes for lambda the share of pixels outside; all may
    be inside, but if none is, the batch is not mixed.

    Args:
        key: of the stream of random numbers, such as (seed, "mixing", epoch, step).
        style: ``compound`` chooses Mixup or CutMix with equal chance.
        probability: that a batch is mixed at all.
        mixup_alpha: above 0; 1 makes lambda uniform, less drives it to 0 and 1.
        cutmix_alpha: the same for CutMix.
        indices: int64 ``[n]``, which image each row of the batch is; ``[2 n]`` with a second batch, whose images
            are the second n rows.
        height: of the images, in pixels.
        width: of the images, in pixels.
        second_batch: mix with a second batch, row by row, instead of within one.
    """
    # All numbers that a batch could need, whatever is chosen: an option changes nothing but what it is about.
    mixed, chosen, down, across, turn = torch.rand(5, generator=generator(*key), dtype=torch.float64).tolist()
    if mixed >= probability:
        return None
    partner = _second_rows(len(indices)) if second_batch else _shifted_permutation(len(indices), turn, key)
    if partner is None:
        return None
    cut = style == "cutmix" or (style == "compound" and chosen >= 0.5)
    share = _beta(cutmix_alpha if cut else mixup_alpha, key)
    box = None
    if cut:
        box = _box(share, down, across, height, width)
        share = 1 - (box[1] - box[0]) * (box[3] - box[2]) / (height * width)
    identities = torch.from_numpy(np.array(indices, dtype=np.int64))
    same = identities[: len(partner)] == identities[partner]
    shares = torch.full((len(partner),), share, dtype=torch.float32).masked_fill_(same, 1.0)
    if bool((shares == 1).all()):
        return None
    return Mixing(partner, shares, box)


def mix(pixels: Tensor, mixing: Mixing) -> Tensor:
    """Return the mixed images, a new tensor ``[n, C, H, W]``; images with share 1 come out bit by bit.

    Args:
        pixels: floating point ``[n, C, H, W]``, or ``[2 n, C, H, W]`` with a second batch; on any device.
        mixing: of a batch of this size.
    """
    number = len(mixing.partner)
    source = on_device(torch.where(mixing.share == 1, torch.arange(number), mixing.partner), pixels.device)
    own = pixels[:number]
    if mixing.box is None:
        # At weight 1, interpolation gives its end exactly.
        share = on_device(mixing.share.to(pixels.dtype), pixels.device).view(-1, 1, 1, 1)
        return torch.lerp(pixels[source], own, share)
    top, bottom, left, right = mixing.box
    result = own.clone()
    result[:, :, top:bottom, left:right] = pixels[:, :, top:bottom, left:right][source]
    return result


def _second_rows(number: int) -> Tensor:
    assert number % 2 == 0, f"{number} images are not two batches of one size"
    return torch.arange(number // 2, number)


def _shifted_permutation(number: int, turn: float, key: tuple[int | str, ...]) -> Tensor | None:
    if number < 2:
        return None
    order = torch.randperm(number, generator=generator(*key, "partners"))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1 + int(turn * (number - 1)))
    return partner


def _beta(alpha: float, key: tuple[int | str, ...]) -> float:
    # NumPy draws Beta numbers from a generator of one's own, which in torch only private functions do.
    return float(np.random.default_rng(stream_seed(*key, "lambda")).beta(alpha, alpha))


def _box(share: float, down: float, across: float, height: int, width: int) -> tuple[int, int, int, int]:
    scale = math.sqrt(1 - share)
    edges = []
    for position, side in ((down, height), (across, width)):
        half = int(side * scale) // 2
        centre = int(position * side)
        edges += [max(centre - half, 0), min(centre + half, side)]
    return edges[0], edges[1], edges[2], edges[3]

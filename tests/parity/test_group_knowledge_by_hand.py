"""Group knowledge against loops written by hand, which use none of the engine's training code, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.backbones import SubNetworkSampler
from engine.data import Batch
from engine.knowledge.fraction import split_knowledge
from engine.knowledge.mixing import Mixing, draw_mixing
from engine.recipes import GKT, MKF, Recipe
from tests.parity.network_by_hand import CLASSES, SEED, STREAM, ByHand, _assert_trained, _batches

TinyRecipe = Callable[..., Recipe]
Row = tuple[int, int]


def _kl(teacher: Tensor, logits: Tensor) -> Tensor:
    """Return KL(teacher || softmax(logits)) of each row; the teacher's are probabilities."""
    return F.kl_div(F.log_softmax(logits, dim=1), teacher, reduction="none").sum(dim=1)


class Dictionary:
    """The store: what each group knows of each image; the values are rounded to half precision."""

    def __init__(self, averaging_weight: float) -> None:
        self.known: dict[Row, Tensor] = {}
        self.averaging_weight = averaging_weight

    def recall(self, group: int, index: int) -> Tensor | None:
        found = self.known.get((group, index))
        return None if found is None else found.float() / found.float().sum()

    def rows(self, group: int, indices: np.ndarray) -> Tensor:
        """Return what is known of images; NaN where nothing is."""
        unknown = torch.full((CLASSES,), torch.nan)
        found = [self.recall(group, int(index)) for index in indices]
        return torch.stack([unknown if each is None else each for each in found])

    def remember(self, group: int, index: int, value: Tensor) -> None:
        old = self.recall(group, index)
        weight = self.averaging_weight
        mean = (value if old is None else weight * value + (1 - weight) * old).clamp(min=0)
        self.known[group, index] = (mean / mean.sum()).half()


def _group_knowledge(
    recipe: Recipe, hand: ByHand, learn: Callable[[Batch, Tensor, Tensor, Any, int, frozenset[str]], Tensor]
) -> None:
    """Train group s modulo 3 in step s, or all groups in each."""
    method = recipe.method
    sampler = SubNetworkSampler(hand.stages, "inherited", decay=method.decay)
    for step, (batch, pixels, labels, normalised) in enumerate(_batches(recipe)):
        loop = step if method.every_group else step // 3
        groups = range(3) if method.every_group else [step % 3]
        drawn = sampler.draw((SEED, STREAM, "sub-networks", loop), 3)
        assert len(drawn[0]) < len(drawn[1]) < len(drawn[2])
        hand.learn(*[learn(batch, pixels, labels, normalised, group, drawn[group]) for group in groups])


def _distilled(store: Dictionary, recalled: Tensor, logits: Tensor) -> Tensor:
    """Return the sum over the rows of which something is known, divided by the number of all rows."""
    known = recalled.isfinite().all(dim=1)
    return _kl(recalled[known], logits[known]).sum() / len(logits)


@pytest.mark.parametrize("every_group", [False, True], ids=["in_turn", "every_group"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_group_knowledge(every_group: bool, temperature: float, small: TinyRecipe, tmp_path: Path) -> None:
    method = GKT(
        every_group=every_group,
        temperature=temperature,
        averaging_weight=0.3,
        distillation_weight=2.5,
        recalibration_images=0,
    )
    recipe = small(method, epochs=2 if every_group else 4)
    hand, store = ByHand(recipe), Dictionary(0.3)
    distilled, unknown, averaged = 0, 0, 0

    def learn(batch: Batch, pixels: Tensor, labels: Tensor, normalised: Any, group: int, dropped: Any) -> Tensor:
        nonlocal distilled, unknown, averaged
        logits = hand.logits(normalised(pixels), dropped)
        loss = F.cross_entropy(logits, labels)
        said = logits.detach().softmax(dim=1)
        for index, row in zip(batch.indices, said, strict=True):
            averaged += (group, int(index)) in store.known
            store.remember(group, int(index), row)
        if group:
            recalled = store.rows(group - 1, batch.indices)
            unknown += int(recalled.isnan().any(dim=1).sum())
            distilled += int(recalled.isfinite().all(dim=1).sum())
            if temperature != 1:
                recalled = (recalled.log() / temperature).softmax(dim=1)
            loss = loss + 2.5 * temperature**2 * _distilled(store, recalled, logits / temperature)
        return loss

    _group_knowledge(recipe, hand, learn)
    assert distilled and averaged
    assert every_group == (not unknown)
    _assert_trained(recipe, tmp_path / "run", hand.network)


def _mixed(pixels: Tensor, mixing: Mixing) -> Tensor:
    images = pixels[: len(mixing.partner)].clone()
    for row, other in enumerate(mixing.partner.tolist()):
        share = mixing.share[row].item()
        if mixing.box is None:
            images[row] = torch.lerp(pixels[other], pixels[row], share)
        elif share < 1:
            top, bottom, left, right = mixing.box
            images[row, :, top:bottom, left:right] = pixels[other, :, top:bottom, left:right]
    return images


@pytest.mark.parametrize("partners", ["same_batch", "second_batch"])
@pytest.mark.parametrize("fraction", ["none", "linear", "shared_clipped", "exact"])
def test_mixed_knowledge_fraction(fraction: Any, partners: Any, small: TinyRecipe, tmp_path: Path) -> None:
    """The first 3 of 6 epochs warm up, for what is not known cannot be split; then every batch is mixed, unless its
    box is empty."""
    method = MKF(
        fraction=fraction,
        mixing_partners=partners,
        warmup_fraction=0.5,
        mixing_probability=1.0,
        recalibration_images=0,
    )
    recipe = small(method, epochs=6)
    hand, store = ByHand(recipe), Dictionary(0.5)
    styles: set[bool] = set()
    split_rows, distilled = 0, 0

    def plainly(batch: Batch, pixels: Tensor, labels: Tensor, normalised: Any, group: int, dropped: Any) -> Tensor:
        rows = len(labels) // 2 if partners == "second_batch" else len(labels)
        logits = hand.logits(normalised(pixels[:rows]), dropped)
        for index, row in zip(batch.indices[:rows], logits.detach().softmax(dim=1), strict=True):
            store.remember(group, int(index), row)
        loss = F.cross_entropy(logits, labels[:rows])
        return loss + 2 * _distilled(store, store.rows(group - 1, batch.indices[:rows]), logits) if group else loss

    def learn(batch: Batch, pixels: Tensor, labels: Tensor, normalised: Any, group: int, dropped: Any) -> Tensor:
        nonlocal split_rows, distilled
        if batch.epoch < 3:
            return plainly(batch, pixels, labels, normalised, group, dropped)
        key = (SEED, STREAM, "mixing", batch.epoch, batch.step)
        mixing = draw_mixing(key, "compound", 1.0, 1.0, 1.0, batch.indices, 8, 8, partners == "second_batch")
        if mixing is None:
            return plainly(batch, pixels, labels, normalised, group, dropped)
        styles.add(mixing.box is None)
        share, partner = mixing.share, mixing.partner.numpy()
        rows = len(partner)
        logits = hand.logits(normalised(_mixed(pixels, mixing)), dropped)
        pairs = ((labels[:rows], share), (labels[mixing.partner], 1 - share))
        losses = [(part * F.cross_entropy(logits, label, reduction="none")).sum() for label, part in pairs]
        first, second = batch.indices[:rows], batch.indices[partner]
        loss = (losses[0] + losses[1]) / (share.sum() + (1 - share).sum())
        if group:
            one, other, weight = store.rows(group - 1, first), store.rows(group - 1, second), share[:, None]
            recalled = torch.where(weight == 1, one, weight * one + (1 - weight) * other)
            distilled += int(recalled.isfinite().all(dim=1).sum())
            loss = loss + 2 * _distilled(store, recalled, logits)
        known = store.rows(group, first), store.rows(group, second)
        split = split_knowledge(logits.detach().softmax(dim=1), *known, share, fraction)
        # One new prediction of an image from all places where it is a part: the mean, by their shares.
        found: dict[int, list[tuple[float, Tensor]]] = {}
        parts = ((first, split.first, split.first_weight), (second, split.second, split.second_weight))
        for indices, values, weights in parts:
            for index, value, heft in zip(indices, values, weights.tolist(), strict=True):
                if heft:
                    found.setdefault(int(index), []).append((heft, value))
        split_rows += len(found)
        for index, estimates in found.items():
            total = sum(heft for heft, _ in estimates)
            store.remember(group, index, sum((heft / total * value for heft, value in estimates), torch.zeros(CLASSES)))
        return loss

    _group_knowledge(recipe, hand, learn)
    assert styles == {True, False}
    assert split_rows > 20
    assert distilled > 20
    _assert_trained(recipe, tmp_path / "run", hand.network)

"""Does a network see mixed images when it should, and plain ones bit for bit otherwise?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.data import Batch
from engine.knowledge.mixing import draw_mixing
from engine.learners import Role
from engine.learners.self_distillation.mixed_images import DataMix, Mixer
from engine.streams import generator

ROWS = 6
ROLE = Role("network", 3, "segment0")
PIXELS = torch.rand(ROWS, 3, 8, 8, generator=generator("mixed_images"))


def batch_at(epoch: int = 0, step: int = 0, rows: int = ROWS) -> Batch:
    images = np.zeros((rows, 3, 8, 8), np.uint8)
    return Batch(images, np.arange(rows) % 3, np.arange(rows) + 10, "train", epoch, step)


def mixer_of(**settings: Any) -> Mixer:
    given: dict[str, Any] = {
        "style": "compound",
        "probability": 1.0,
        "mixup_alpha": 1.0,
        "cutmix_alpha": 1.0,
        "warmup_epochs": 0,
        "second_batch": False,
        **settings,
    }
    return Mixer(ROLE, **given)


def is_mixed(mixer: Mixer, epoch: int, step: int) -> bool:
    return mixer.draw(batch_at(epoch, step), PIXELS) is not None


def test_nothing_is_mixed_in_the_warm_up() -> None:
    mixer = mixer_of(style="mixup", warmup_epochs=2)
    assert [[is_mixed(mixer, epoch, step) for step in range(5)] for epoch in range(4)] == [
        [False] * 5,
        [False] * 5,
        [True] * 5,
        [True] * 5,
    ]


def test_half_of_the_batches_are_mixed_and_half_of_these_by_mixup() -> None:
    mixer = mixer_of(probability=0.5)
    drawn = [mixer.draw(batch_at(step=step), PIXELS) for step in range(1000)]
    mixed = [each for each in drawn if each is not None]
    blended = sum(each.box is None for each in mixed)
    # 4 standard deviations; an empty CutMix box, which counts as unmixed, is rare at this size.
    assert abs(len(mixed) - 500) < 4 * 16 + 30
    assert abs(blended - 250) < 4 * 14


def test_the_draw_is_that_of_the_documented_stream() -> None:
    mixing = mixer_of().draw(batch_at(4, 7), PIXELS)
    key = (3, "segment0", "mixing", 4, 7)
    expected = draw_mixing(key, "compound", 1.0, 1.0, 1.0, batch_at().indices, 8, 8, False)
    assert mixing is not None
    assert expected is not None
    assert mixing.partner.equal(expected.partner)
    assert mixing.share.equal(expected.share)
    assert mixing.box == expected.box


def test_with_a_second_batch_the_first_half_are_the_images() -> None:
    assert mixer_of(second_batch=True).rows(batch_at()) == 3
    assert mixer_of().rows(batch_at()) == 6
    mixing = mixer_of(style="mixup", second_batch=True).draw(batch_at(), PIXELS)
    assert mixing is not None
    assert mixing.partner.tolist() == [3, 4, 5]


def test_a_plain_step_sees_the_batch_as_it_is() -> None:
    passes = DataMix(mixer_of(probability=0.0)).passes(batch_at(), PIXELS)
    assert passes.first.pixels.equal(PIXELS)
    assert passes.first.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert passes.first.mixed is None
    assert not passes.consulted
    assert not passes.further


@pytest.mark.parametrize("step", range(4))
def test_mixup_blends_images_and_labels_alike(step: int) -> None:
    batch = batch_at(step=step)
    mixing = mixer_of(style="mixup").draw(batch, PIXELS)
    first = DataMix(mixer_of(style="mixup")).passes(batch, PIXELS).first
    assert mixing is not None
    assert first.mixed is not None
    blended: list[Tensor] = []
    for row, partner in enumerate(mixing.partner.tolist()):
        share = float(mixing.share[row])
        blended.append(share * PIXELS[row] + (1 - share) * PIXELS[partner])
        assert int(first.labels[row]) == row % 3
        assert int(first.mixed.second[row]) == partner % 3
    torch.testing.assert_close(first.pixels, torch.stack(blended))
    assert first.mixed.share.equal(mixing.share)


@pytest.mark.parametrize("step", range(1, 5))
def test_the_share_of_cutmix_is_the_share_of_its_own_pixels(step: int) -> None:
    # Every image is of one value, by which each of its pixels is known.
    pixels = (torch.arange(ROWS) / 10).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    first = DataMix(mixer_of(style="cutmix")).passes(batch_at(step=step), pixels).first
    assert first.mixed is not None
    own = (first.pixels == pixels).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(own, first.mixed.share)

"""Is lambda the share of pixels that a first image keeps, and is every draw a pure function of its key?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.knowledge.mixing import Mixing, draw_mixing, mix
from engine.streams import generator


def drawn(step: int = 0, **changes: Any) -> Mixing | None:
    arguments: dict[str, Any] = {
        "key": (7, "mixing", step),
        "style": "compound",
        "probability": 1.0,
        "mixup_alpha": 1.0,
        "cutmix_alpha": 1.0,
        "indices": np.arange(8),
        "height": 12,
        "width": 20,
        "second_batch": False,
        **changes,
    }
    return draw_mixing(**arguments)


def equal(one: Mixing | None, other: Mixing | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.box == other.box and torch.equal(one.partner, other.partner) and torch.equal(one.share, other.share)


@pytest.mark.parametrize("style", ["mixup", "cutmix"])
def test_lambda_is_the_real_share_of_the_first_image(style: str) -> None:
    # Image i is all 2^i, so the mean of a mixture tells both images and their shares.
    values = 2.0 ** torch.arange(8, dtype=torch.float64)
    pixels = values.view(-1, 1, 1, 1).expand(8, 3, 12, 20)
    seen = 0
    for step in range(100):
        mixing = drawn(step, style=style)
        if mixing is None:
            continue
        seen += 1
        assert (mixing.box is None) == (style == "mixup")
        share = mixing.share.double()
        expected = share * values + (1 - share) * values[mixing.partner]
        torch.testing.assert_close(mix(pixels, mixing).mean(dim=(1, 2, 3)), expected, rtol=1e-6, atol=0)
    assert seen > 80


def test_cutmix_replaces_exactly_the_box() -> None:
    ones = torch.ones(2, 1, 12, 20)
    pixels = torch.cat([ones, 0 * ones])
    for step in range(50):
        mixing = drawn(step, style="cutmix", indices=np.arange(4), second_batch=True)
        if mixing is None:
            continue
        assert mixing.box is not None
        mixed = mix(pixels, mixing)
        top, bottom, left, right = mixing.box
        assert 0 <= top < bottom <= 12 and 0 <= left < right <= 20
        assert mixed[:, :, top:bottom, left:right].sum() == 0
        assert mixed.sum(dim=(1, 2, 3)).tolist() == [240 - (bottom - top) * (right - left)] * 2
        assert torch.equal(mixing.share, (mixed.sum(dim=(1, 2, 3)) / 240))


def test_boxes_without_pixels_leave_the_batch_and_full_ones_replace_it() -> None:
    # With a tiny alpha, lambda is next to 0 or 1.
    steps = [drawn(step, style="cutmix", cutmix_alpha=1e-3, height=2, width=2) for step in range(200)]
    assert sum(each is None for each in steps) > 40
    full = [each for each in steps if each is not None and each.box == (0, 2, 0, 2)]
    for mixing in full:
        assert mixing.share.tolist() == [0.0] * 8
        pixels = torch.rand(8, 3, 2, 2, generator=generator("pixels"))
        assert torch.equal(mix(pixels, mixing), pixels[mixing.partner])
    assert len(full) > 10
    # An image of one pixel has no half to cut.
    assert drawn(style="cutmix", cutmix_alpha=1e-3, height=1, width=1) is None


def test_mixup_without_a_second_image_leaves_the_batch() -> None:
    steps = [drawn(step, style="mixup", mixup_alpha=1e-4) for step in range(60)]
    assert sum(each is None for each in steps) > 10
    assert all(float(each.share[0]) < 1 for each in steps if each is not None)


def test_nobody_is_its_own_partner_and_everybody_is_one() -> None:
    for number in (2, 3, 8, 64):
        partners = set()
        for step in range(60):
            mixing = drawn(step, style="mixup", indices=np.arange(number))
            assert mixing is not None
            assert sorted(mixing.partner.tolist()) == list(range(number))
            assert not (mixing.partner == torch.arange(number)).any()
            partners.add(int(mixing.partner[0]))
        if number == 8:
            assert partners == set(range(1, 8))
    assert drawn(indices=np.arange(1)) is None


def test_partners_of_a_second_batch_are_in_its_rows() -> None:
    mixing = drawn(style="mixup", indices=np.arange(10), second_batch=True)
    assert mixing is not None
    assert mixing.partner.tolist() == [5, 6, 7, 8, 9] and mixing.partner.dtype == torch.int64
    pixels = torch.rand(10, 3, 12, 20, generator=generator("pixels"))
    expected = mixing.share[0] * pixels[:5] + (1 - mixing.share[0]) * pixels[5:]
    torch.testing.assert_close(mix(pixels, mixing), expected)


@pytest.mark.parametrize("style", ["mixup", "cutmix"])
@pytest.mark.parametrize("second_batch", [True, False])
def test_an_image_is_not_mixed_with_itself(style: str, second_batch: bool) -> None:
    indices = np.array([3, 5, 6, 3, 1, 6]) if second_batch else np.array([4, 4, 4, 2])
    pixels = torch.rand(len(indices), 3, 12, 20, generator=generator("pixels"))
    unmixed = 0
    for step in range(30):
        mixing = drawn(step, style=style, indices=indices, second_batch=second_batch)
        if mixing is None:
            continue
        for row, partner in enumerate(mixing.partner.tolist()):
            same = indices[row] == indices[partner]
            assert (mixing.share[row] == 1) == same
            assert torch.equal(mix(pixels, mixing)[row], pixels[row]) == same
            unmixed += same
    assert unmixed > 10
    assert drawn(style=style, indices=np.zeros(4, dtype=np.int64), second_batch=second_batch) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("box", [None, (0, 12, 0, 20), (2, 5, 3, 9)])
def test_share_1_is_bit_equal_and_inputs_stay(box: tuple[int, int, int, int] | None, dtype: torch.dtype) -> None:
    pixels = torch.randn(4, 3, 12, 20, generator=generator("pixels")).to(dtype)
    before = pixels.clone()
    mixed = mix(pixels, Mixing(torch.tensor([1, 2, 3, 0]), torch.tensor([1.0, 0.5, 1.0, 0.5]), box))
    assert mixed.dtype == dtype and mixed.data_ptr() != pixels.data_ptr()
    assert torch.equal(mixed[0], pixels[0]) and torch.equal(mixed[2], pixels[2])
    assert not torch.equal(mixed[1], pixels[1]) and not torch.equal(mixed[3], pixels[3])
    mixed.zero_()
    assert torch.equal(pixels, before)


def test_every_draw_is_a_function_of_its_key_and_leaves_global_generators_alone() -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = [drawn(step) for step in range(20)], [drawn(step) for step in range(20)]
    assert all(equal(one, other) for one, other in zip(first, second, strict=True))
    assert not all(equal(one, drawn(step + 100)) for step, one in enumerate(first))
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


def test_half_are_mixed_and_half_of_those_are_cut() -> None:
    # Bounds are five standard deviations of the binomial distribution; boxes of a large image are never empty.
    steps = 2000
    mixed = [
        mixing for step in range(steps) if (mixing := drawn(step, probability=0.5, height=2000, width=2000)) is not None
    ]
    assert abs(len(mixed) - steps / 2) < 5 * (steps / 4) ** 0.5
    cut = sum(mixing.box is not None for mixing in mixed)
    assert abs(cut - len(mixed) / 2) < 5 * (len(mixed) / 4) ** 0.5
    assert drawn(probability=0.0) is None


def test_a_style_changes_neither_partners_nor_which_batches_are_mixed() -> None:
    for step in range(50):
        one, other = (
            drawn(step, style=style, probability=0.5, height=2000, width=2000) for style in ("mixup", "cutmix")
        )
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.equal(one.partner, other.partner)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_lambda_has_the_moments_of_the_beta_distribution(alpha: float) -> None:
    number = 3000
    found = [drawn(step, style="mixup", mixup_alpha=alpha) for step in range(number)]
    shares = torch.tensor([1.0 if each is None else float(each.share[0]) for each in found], dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < 5 * (variance / number) ** 0.5
    assert float(shares.var()) == pytest.approx(variance, rel=0.1)


def test_cut_boxes_are_as_large_as_lambda_says_and_centred_anywhere() -> None:
    found = [drawn(step, style="cutmix", height=100, width=100, cutmix_alpha=200.0) for step in range(1500)]
    boxes = np.array([each.box for each in found if each is not None])
    # Lambda is almost one half: boxes of about 71 x 71 pixels, of which the image cuts off what is outside.
    assert (boxes[:, 1] - boxes[:, 0]).max() <= 78
    assert (boxes[:, 0] == 0).mean() == pytest.approx(0.36, abs=0.06)
    assert (boxes[:, 3] == 100).mean() == pytest.approx(0.36, abs=0.06)

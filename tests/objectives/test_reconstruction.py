"""Is the reconstruction loss the published one, and does it leave the image alone?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine.objectives import Context, Reconstruction, cifar_decoder, reconstruction_loss
from engine.streams import generator, seeded


def naive_loss(logits: torch.Tensor, pixels: torch.Tensor) -> float:
    """Average over pixels, one at a time, in float64, with the sigmoid written out."""
    total = 0.0
    for logit, pixel in zip(logits.double().flatten().tolist(), pixels.double().flatten().tolist(), strict=True):
        predicted = 1.0 / (1.0 + math.exp(-logit))
        total -= pixel * math.log(predicted) + (1.0 - pixel) * math.log(1.0 - predicted)
    return total / logits.numel()


def test_equals_the_formula() -> None:
    logits = 3 * torch.randn(2, 3, 4, 5, generator=generator("logits"))
    pixels = torch.rand(2, 3, 4, 5, generator=generator("pixels"))
    assert reconstruction_loss(logits, pixels).item() == pytest.approx(naive_loss(logits, pixels), rel=1e-6)


def test_known_values_for_uniform_noise() -> None:
    pixels = torch.rand(64, 3, 32, 32, generator=generator("noise"))
    assert reconstruction_loss(torch.zeros_like(pixels), pixels).item() == pytest.approx(math.log(2), rel=1e-6)
    assert reconstruction_loss(pixels.logit(eps=1e-7), pixels).item() == pytest.approx(0.5, abs=2e-3)


def test_certain_predictions_stay_finite() -> None:
    logits = torch.tensor([[[[200.0, -200.0]]]], requires_grad=True)
    loss = reconstruction_loss(logits, torch.tensor([[[[0.0, 0.0]]]]))
    loss.backward()
    assert loss.item() == 100.0
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_term_sends_gradients_to_features_and_decoder_but_not_to_pixels() -> None:
    with seeded("reconstruction"):
        term = Reconstruction(cifar_decoder((4, 4, 4), (3, 8, 8)))
    features = torch.randn(2, 4, 4, 4, generator=generator("features"), requires_grad=True)
    pixels = torch.rand(2, 3, 8, 8, generator=generator("pixels"), requires_grad=True)
    assert term.needs_pixels
    value = term(features, Context(torch.zeros(2, dtype=torch.int64), pixels))
    value.loss.backward()
    assert pixels.grad is None
    assert features.grad is not None and bool((features.grad != 0).any())
    assert all(parameter.grad is not None for parameter in term.parameters())


def test_half_precision_decoder_gives_a_float32_loss() -> None:
    class Given(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.bfloat16()

    logits = torch.randn(2, 3, 4, 4, generator=generator("half"))
    pixels = torch.rand(2, 3, 4, 4, generator=generator("pixels"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = Reconstruction(Given())(logits, Context(torch.zeros(2), pixels)).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_loss(logits.bfloat16(), pixels), rel=1e-5)


def test_a_share_of_the_images_has_the_gradient_of_all_as_its_expected_value() -> None:
    """Over all six pairs of four images; the decoder has no batch normalisation, which would see the pair alone."""
    with seeded("share"):
        decoder = nn.Conv2d(2, 3, 3, padding=1)
    features = torch.randn(4, 2, 4, 4, generator=generator("features"), dtype=torch.float64, requires_grad=True)
    pixels = torch.rand(4, 3, 4, 4, generator=generator("pixels"), dtype=torch.float64)
    whole, half = Reconstruction(decoder.double()), Reconstruction(decoder.double(), share=0.5, seed=3)

    def gradient(term: Reconstruction, epoch: int, step: int) -> torch.Tensor:
        context = Context(torch.zeros(4, dtype=torch.int64), pixels, epoch=epoch, step=step)
        (found,) = torch.autograd.grad(term(features, context).loss, features)
        return found

    pairs: dict[tuple[bool, ...], torch.Tensor] = {}
    for step in range(200):
        found = gradient(half, 1, step)
        pairs.setdefault(tuple(found.flatten(1).any(dim=1).tolist()), found)
        assert torch.equal(found, gradient(half, 1, step))
    assert len(pairs) == 6
    assert {sum(pair) for pair in pairs} == {2}
    torch.testing.assert_close(sum(pairs.values()) / 6, gradient(whole, 1, 0), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("images", "share", "seen"), [(12, 0.5, 6), (5, 0.5, 2), (3, 0.01, 1), (7, 0.999, 7)])
def test_at_least_one_image_is_reconstructed(images: int, share: float, seen: int) -> None:
    class Counting(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            assert len(features) == seen
            return features

    maps = torch.rand(images, 3, 4, 4)
    Reconstruction(Counting(), share)(maps, Context(torch.zeros(images), maps))

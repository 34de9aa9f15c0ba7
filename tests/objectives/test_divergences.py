"""Are the divergences of two predictions those of the formulas: never negative, blind to shifts, 0 at agreement?"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.objectives import kl_divergence
from engine.recipes import Divergence
from tests.objectives.predictions import BATCH, CLASSES, DIVERGENCES, FUNCTIONS, LABELS, logits_of


def test_kl_divergence_is_that_of_torch_by_the_batch() -> None:
    teacher, student = logits_of("teacher"), logits_of("student")
    each = F.kl_div((student / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="none")
    # The mean over all numbers, which is torch's default, is too small by the number of classes.
    torch.testing.assert_close(kl_divergence(teacher, student, 2.0), 4 * CLASSES * each.mean())


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(DIVERGENCES),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
)
def test_never_negative_blind_to_shifts_and_zero_only_at_agreement(
    name: str, seed: int, scale: float, temperature: float
) -> None:
    teacher, student = scale * logits_of("teacher", seed), (scale * logits_of("student", seed)).requires_grad_()
    loss = FUNCTIONS[name](teacher, student, temperature)
    assert loss.item() > -1e-6 * temperature**2
    if scale >= 1.0:
        assert loss.item() > 1e-3
    shift = torch.linspace(-2.0, 2.0, BATCH)[:, None]
    shifted = FUNCTIONS[name](teacher + shift, student - 3 * shift, temperature)
    torch.testing.assert_close(shifted, loss, atol=1e-5, rtol=1e-4)
    agreed = FUNCTIONS[name](student.detach() + shift, student, temperature)
    assert agreed.item() == pytest.approx(0.0, abs=1e-5)
    (gradient,) = torch.autograd.grad(agreed, student)
    torch.testing.assert_close(gradient, torch.zeros(BATCH, CLASSES), atol=1e-5, rtol=0.0)
    if name == "jensen_shannon":
        assert loss.item() <= temperature**2 * (math.log(2) + 1e-6)
    if name in ("jensen_shannon", "jeffreys"):
        assert FUNCTIONS[name](student, teacher, temperature).item() == loss.item()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_certain_predictions_that_contradict(divergence: Divergence) -> None:
    eye = torch.eye(CLASSES)[LABELS]
    loss = FUNCTIONS[divergence](50.0 * eye, 50.0 * eye.roll(1, dims=1)).item()
    # KL: all of the teacher's probability is where the student's is e^-50.
    assert loss == pytest.approx(math.log(2) if divergence == "jensen_shannon" else 50.0, rel=1e-6)

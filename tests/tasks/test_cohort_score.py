"""Are networks scored together as counting by hand scores them, however the images are batched?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.streams import generator
from engine.tasks import ClassificationScore, CohortScore


def draw(networks: int, images: int, num_classes: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    logits = 3 * torch.randn(networks, images, num_classes, generator=generator("cohort", seed))
    labels = torch.randint(num_classes, (images,), generator=generator("labels", seed))
    return {f"peer{place}": each for place, each in enumerate(logits)}, labels


def probabilities(row: list[float]) -> list[float]:
    top = max(row)
    values = [math.exp(value - top) for value in row]
    return [value / sum(values) for value in values]


def naive_score(logits: dict[str, Tensor], labels: list[int]) -> dict[str, float]:
    """Score one image and one pair of networks at a time in Python numbers."""
    networks = [[probabilities(row) for row in each.double().tolist()] for each in logits.values()]
    images, classes = range(len(labels)), range(len(networks[0][0]))
    mean = [[sum(each[i][c] for each in networks) / len(networks) for c in classes] for i in images]
    ensemble = ClassificationScore(len(classes))
    ensemble.update(torch.tensor(mean, dtype=torch.float64).log(), torch.tensor(labels))
    guesses = [[max(classes, key=lambda c: row[c]) for row in each] for each in networks]
    accuracies = [sum(guess[i] == labels[i] for i in images) / len(labels) for guess in guesses]
    pairs = [(j, k) for j in range(len(networks)) for k in range(len(networks)) if j != k]
    divergence = disagreements = 0.0
    for j, k in pairs:
        for i in images:
            p, q = networks[j][i], networks[k][i]
            divergence += sum(p[c] * math.log(p[c] / q[c]) for c in classes) / len(pairs)
            disagreements += (guesses[j][i] != guesses[k][i]) / len(pairs)
    if not pairs:
        return ensemble.result()
    return {
        **ensemble.result(),
        "accuracy_gap": max(accuracies) - min(accuracies),
        "kl_between_peers": divergence / len(labels),
        "disagreement": disagreements / len(labels),
    }


@settings(max_examples=30)
@given(
    networks=st.integers(1, 4),
    batches=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    num_classes=st.integers(2, 8),
    seed=st.integers(0, 100),
)
def test_equals_counting_by_hand_for_ragged_batches(
    networks: int, batches: list[int], num_classes: int, seed: int
) -> None:
    logits, labels = draw(networks, sum(batches), num_classes, seed)
    score = CohortScore(num_classes)
    start = 0
    for size in batches:
        part = slice(start, start + size)
        score.update({name: each[part] for name, each in logits.items()}, labels[part])
        start += size
    assert score.images == sum(batches)
    assert score.result() == pytest.approx(naive_score(logits, labels.tolist()), rel=1e-9, abs=1e-12)


def test_the_ensemble_may_be_right_where_no_network_is_surest_of_the_label() -> None:
    one = torch.tensor([[0.50, 0.45, 0.05]]).log()
    other = torch.tensor([[0.05, 0.45, 0.50]]).log()
    score = CohortScore(3)
    score.update({"peer0": one, "peer1": other}, torch.tensor([1]))
    result = score.result()
    assert (result["accuracy"], result["accuracy_gap"], result["disagreement"]) == (1.0, 0.0, 1.0)
    assert result["kl_between_peers"] == pytest.approx(0.45 * math.log(10), rel=1e-6)
    assert result["loss"] == pytest.approx(-math.log(0.45), rel=1e-6)


def test_equal_networks_are_as_good_together_as_each_alone() -> None:
    logits, labels = draw(1, 20, 10, 7)
    alone = ClassificationScore(10)
    alone.update(logits["peer0"], labels)
    score = CohortScore(10)
    score.update({f"peer{place}": logits["peer0"] for place in range(3)}, labels)
    same = {"accuracy_gap": 0.0, "kl_between_peers": 0.0, "disagreement": 0.0}
    assert score.result() == pytest.approx({**alone.result(), **same}, rel=1e-12, abs=1e-12)


def test_logits_of_any_size_are_compared_without_overflow() -> None:
    logits, labels = draw(2, 8, 5, 3)
    score = CohortScore(5)
    score.update({"peer0": 1e4 * logits["peer0"], "peer1": -1e4 * logits["peer0"]}, labels)
    assert all(math.isfinite(value) for value in score.result().values())
    assert score.result()["kl_between_peers"] > 1e4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_network_that_has_diverged_does_not_count(value: float) -> None:
    logits, labels = draw(3, 12, 6, 1)
    expected = naive_score({name: logits[name] for name in ("peer0", "peer2")}, labels.tolist())
    logits["peer1"] = torch.full_like(logits["peer1"], value)
    score = CohortScore(6)
    score.update(logits, labels)
    assert score.result() == pytest.approx(expected, rel=1e-9)


def test_nothing_is_said_of_a_cohort_that_has_diverged_altogether() -> None:
    score = CohortScore(6)
    assert score.result() == {}
    score.update({"peer0": torch.full((3, 6), math.nan)}, torch.zeros(3, dtype=torch.int64))
    assert (score.images, score.result()) == (3, {})

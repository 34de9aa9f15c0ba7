"""Cohorts against loops written by hand, which use none of the engine's training code, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import engine
from engine.objectives import linear_head
from engine.streams import seeded
from tests.parity.peers_by_hand import (
    BATCH,
    CLASSES,
    _assert_equal,
    _learn,
    _network,
    _optimizer,
    _recipe,
    _state,
    _steps,
    _train,
    mean_of_kl,
    sum_of_kl,
)

WEIGHT = 0.7
COHORT = ("method.kind=dml", f"method.weight={WEIGHT}")

Teach = Callable[[Tensor, Sequence[Tensor]], Tensor]


def _others(values: Sequence[Tensor], place: int) -> list[Tensor]:
    return [value.detach() for other, value in enumerate(values) if other != place]


def _assert_cohort(run: engine.Run, networks: Sequence[nn.Module]) -> None:
    for place, network in enumerate(networks):
        _assert_equal(_state(run, f"peer{place}"), network)


def softened(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    return mean_of_kl(own, others, 3.0)


def kl_from_mean_of_probabilities(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    each = torch.stack([F.log_softmax(other, dim=1) for other in others])
    mean = torch.logsumexp(each, dim=0) - torch.log(torch.tensor(float(len(others))))
    return F.kl_div(F.log_softmax(own, dim=1), mean, log_target=True, reduction="batchmean")


def kl_from_mean_of_logits(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    return mean_of_kl(own, [torch.stack(list(others)).sum(dim=0) / len(others)])


def _simultaneous(recipe: engine.Recipe, peers: int, teach: Teach, interval: int = 1) -> list[nn.Sequential]:
    """All predict, then all learn; from one another in the last of every ``interval`` steps."""
    networks = [_network(recipe, place) for place in range(peers)]
    optimizers = [_optimizer(network) for network in networks]
    for step, images, labels in _steps(recipe, optimizers):
        logits = [network(images) for network in networks]
        known = labels >= 0
        for place, (own, optimizer) in enumerate(zip(logits, optimizers, strict=True)):
            loss = F.cross_entropy(own[known], labels[known])
            if (step + 1) % interval == 0:
                loss = loss + WEIGHT * teach(own, _others(logits, place))
            _learn(optimizer, loss)
    return networks


def _sequential(recipe: engine.Recipe, peers: int) -> list[nn.Sequential]:
    """Each learns from what those before it say after their update (paper, Algorithm 1)."""
    networks = [_network(recipe, place) for place in range(peers)]
    optimizers = [_optimizer(network) for network in networks]
    for _, images, labels in _steps(recipe, optimizers):
        logits = [network(images) for network in networks]
        said = [own.detach() for own in logits]
        for place, (own, network, optimizer) in enumerate(zip(logits, networks, optimizers, strict=True)):
            _learn(optimizer, F.cross_entropy(own, labels) + WEIGHT * mean_of_kl(own, _others(said, place)))
            # Of a copy: the running statistics of the network itself see the batch once.
            said[place] = copy.deepcopy(network)(images).detach()
    return networks


@pytest.mark.parametrize(
    ("words", "peers", "teach"),
    [
        ((), 2, mean_of_kl),
        (("method.temperature=3",), 2, softened),
        ((), 3, mean_of_kl),
        (("method.reduction=sum",), 3, sum_of_kl),
        (("data.labelled_fraction=0.3",), 3, mean_of_kl),
        (("method.target=mean_probabilities",), 3, kl_from_mean_of_probabilities),
        (("method.target=mean_logits",), 3, kl_from_mean_of_logits),
    ],
    ids=["two", "temperature", "three", "sum", "labelled_fraction", "mean_probabilities", "mean_logits"],
)
def test_simultaneous(words: tuple[str, ...], peers: int, teach: Teach, tmp_path: Path) -> None:
    recipe = _recipe(*COHORT, f"method.peers={peers}", *words)
    _assert_cohort(_train(recipe, tmp_path / "run"), _simultaneous(recipe, peers, teach))


def test_codistillation_exchanges_predictions_in_every_third_step(tmp_path: Path) -> None:
    recipe = _recipe(*COHORT, "method.peers=3", "method.schedule=codistillation", "method.exchange_interval=3")
    _assert_cohort(_train(recipe, tmp_path / "run"), _simultaneous(recipe, 3, mean_of_kl, interval=3))


def test_sequential(tmp_path: Path) -> None:
    recipe = _recipe(*COHORT, "method.peers=3", "method.schedule=sequential")
    _assert_cohort(_train(recipe, tmp_path / "run"), _sequential(recipe, 3))


def test_after_one_step_only_the_first_peer_is_that_of_the_simultaneous_schedule(tmp_path: Path) -> None:
    words = (*COHORT, "method.peers=3", f"data.train_limit={BATCH}", "epochs=1")
    runs = [
        _train(_recipe(*words, f"method.schedule={schedule}"), tmp_path / schedule)
        for schedule in ("simultaneous", "sequential")
    ]
    for name in ("peer0", "peer1", "peer2"):
        one, other = (_state(run, name) for run in runs)
        same = {key for key, value in one.items() if value.equal(other[key])}
        # All saw the images once, so only what was learned may differ.
        assert {key for key in one if "running" in key or "num_batches" in key} <= same
        assert same == one.keys() if name == "peer0" else not same & {"classifier.fc.weight", "classifier.fc.bias"}


def test_weights_are_exchanged_in_every_second_step_and_used_until_the_next(tmp_path: Path) -> None:
    words = ("method.schedule=codistillation", "method.exchange=weights", "method.exchange_interval=2")
    recipe = _recipe(*COHORT, "method.peers=3", *words)
    run = _train(recipe, tmp_path / "run")

    networks = [_network(recipe, place) for place in range(3)]
    optimizers = [_optimizer(network) for network in networks]
    copies: list[nn.Sequential] = []
    for step, images, labels in _steps(recipe, optimizers):
        if step % 2 == 1:
            # In training mode, so they predict from the statistics of the batch.
            copies = copy.deepcopy(networks)
        said = [each(images) for each in copies]
        for place, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
            own = network(images)
            loss = F.cross_entropy(own, labels)
            if copies:
                loss = loss + WEIGHT * mean_of_kl(own, _others(said, place))
            _learn(optimizer, loss)

    _assert_cohort(run, networks)


def test_features_before_the_classifier_are_compared(tmp_path: Path) -> None:
    recipe = _recipe(*COHORT, "method.peers=3", "method.feature_weight=0.2")
    run = _train(recipe, tmp_path / "run")

    networks = [_network(recipe, place) for place in range(3)]
    optimizers = [_optimizer(network) for network in networks]
    for _, images, labels in _steps(recipe, optimizers):
        pooled = [network[:-1](images).mean(dim=(2, 3)) for network in networks]
        logits = [network[-1].fc(features) for network, features in zip(networks, pooled, strict=True)]
        for place, optimizer in enumerate(optimizers):
            distances = [(pooled[place] - other).square().sum(dim=1).mean() for other in _others(pooled, place)]
            features = torch.stack(distances).sum() / 2
            mimicry = mean_of_kl(logits[place], _others(logits, place))
            _learn(optimizer, F.cross_entropy(logits[place], labels) + 0.2 * features + WEIGHT * mimicry)

    _assert_cohort(run, networks)


@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
def test_a_grid_of_two_peers_and_two_segments(schedule: str, tmp_path: Path) -> None:
    words = ("method.peer_method.kind=greedy", "method.peer_method.num_segments=2", "method.local_weight=0.3")
    recipe = _recipe(*COHORT, *words, f"method.schedule={schedule}")
    run = _train(recipe, tmp_path / "run")

    # 5 blocks in 2 segments: boundary round(5 / 2) = 2.
    networks = [_network(recipe, place) for place in range(2)]
    heads: list[nn.Module] = []
    for stream in ("segment0", "peer1_segment0"):
        with seeded(recipe.seed, stream, "auxiliary"):
            heads.append(linear_head((4, 8, 8), CLASSES))
    depths = [
        (0.3, [network[:2] for network in networks], heads),
        (WEIGHT, [network[2:] for network in networks], [nn.Identity(), nn.Identity()]),
    ]
    optimizers = [[_optimizer(*parts) for parts in zip(bodies, ends, strict=True)] for _, bodies, ends in depths]
    for _, images, labels in _steps(recipe, [each for both in optimizers for each in both]):
        inputs = [images, images]
        for (weight, bodies, ends), both in zip(depths, optimizers, strict=True):
            features = [body(each) for body, each in zip(bodies, inputs, strict=True)]
            logits = [end(each) for end, each in zip(ends, features, strict=True)]
            said = [each.detach() for each in logits]
            for place, (own, optimizer) in enumerate(zip(logits, both, strict=True)):
                _learn(optimizer, F.cross_entropy(own, labels) + weight * mean_of_kl(own, _others(said, place)))
                if schedule == "sequential":
                    said[place] = copy.deepcopy(nn.Sequential(bodies[place], ends[place]))(inputs[place]).detach()
            inputs = [each.detach() for each in features]

    _assert_cohort(run, networks)

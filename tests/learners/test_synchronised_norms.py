"""Does a batch norm over replicas equal torch's over the whole batch?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from engine.learners import synchronised_norms
from engine.learners.synchronised_norms import synchronise_norms


@pytest.fixture
def group(tmp_path: Path) -> Iterator[torch.distributed.ProcessGroup]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=30))
    found = torch.distributed.group.WORLD
    assert found is not None
    yield found
    torch.distributed.destroy_process_group()


def _learned(network: nn.Module, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    features = features.clone().requires_grad_()
    output = network(features)
    (output * weights).sum().backward()
    assert features.grad is not None
    return output.detach(), features.grad, [parameter.grad.clone() for parameter in network.parameters()]


@pytest.mark.parametrize(
    "norm, shape",
    [
        (nn.BatchNorm2d(3), (8, 3, 4, 5)),
        (nn.BatchNorm1d(3), (8, 3)),
        (nn.BatchNorm2d(3, affine=False), (8, 3, 4, 4)),
        (nn.BatchNorm2d(3, momentum=None), (8, 3, 4, 4)),
        (nn.BatchNorm2d(3, track_running_stats=False), (8, 3, 4, 4)),
    ],
)
def test_alone_it_is_an_ordinary_batch_norm(
    group: torch.distributed.ProcessGroup, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(copy.deepcopy(norm))
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    synchronised = copy.deepcopy(plain)
    synchronise_norms(synchronised, group)
    for _ in range(3):
        features, weights = torch.randn(shape) * 3 + 20, torch.randn(shape)
        for network in (plain, synchronised):
            network.zero_grad()
        first, second = (_learned(network, features, weights) for network in (plain, synchronised))
        torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-4)
    assert synchronised.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(synchronised.state_dict(), plain.state_dict())
    features = torch.randn(shape)
    torch.testing.assert_close(synchronised.eval()(features), plain.eval()(features), rtol=1e-4, atol=1e-4)


def test_gradients_of_weight_and_bias_are_as_precise_as_these(group: torch.distributed.ProcessGroup) -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    synchronise_norms(network, group)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(8, 3, 4, 5))
    assert output.dtype == torch.bfloat16
    given = torch.randn_like(output)
    output.backward(given)
    expected, bias = given.float().sum((0, 2, 3)), network[1].bias
    assert isinstance(bias, nn.Parameter) and bias.grad is not None
    assert torch.equal(bias.grad, expected)
    assert not torch.equal(expected, expected.bfloat16().float())


def test_two_halves_see_the_whole_batch(group: torch.distributed.ProcessGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    whole = nn.Sequential(nn.BatchNorm2d(3))
    features, weights = torch.randn(10, 3, 4, 4) * 2 + 7, torch.randn(10, 3, 4, 4)
    output, gradient, parameters = _learned(copy.deepcopy(whole), features, weights)
    parts = [(features[:4], weights[:4]), (features[4:], weights[4:])]
    told: list[list[Tensor]] = [[], []]

    # What each half tells is first noted with itself alone, then both are heard, as from two replicas: the backward
    # pass of the last round has heard all.
    found = []
    for _ in range(3):
        found = []
        for half, (own, weight) in enumerate(parts):
            asked = iter(range(2))

            def of_all(said: Tensor, group: object, half: int = half, asked: Iterator[int] = asked) -> Tensor:
                place = next(asked)
                known = [told[other][place] if len(told[other]) > place else said for other in range(2)]
                known[half] = said
                del told[half][place : place + 1]
                told[half].insert(place, said.clone())
                return torch.stack(known)

            monkeypatch.setattr(synchronised_norms, "_of_all", of_all)
            network = copy.deepcopy(whole)
            synchronise_norms(network, group)
            found.append(_learned(network, own, weight))
    torch.testing.assert_close(torch.cat([found[0][0], found[1][0]]), output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat([found[0][1], found[1][1]]), gradient, rtol=1e-4, atol=1e-4)
    for first, second, expected in zip(found[0][2], found[1][2], parameters, strict=True):
        torch.testing.assert_close(first + second, expected, rtol=1e-4, atol=1e-4)

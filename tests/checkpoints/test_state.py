"""Does a learner go on from a saved state as if it had never stopped, bit for bit?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from engine.checkpoints import LearnerState, pack_state, unpack_state
from engine.errors import RunError
from engine.learners.optimization import make_optimizer
from engine.recipes import SGD, Adam, AdamW, Optimizer, RMSProp
from engine.streams import generator, seeded

CHOICES: Sequence[Optimizer] = (
    SGD(),
    SGD(nesterov=False),
    SGD(momentum=0, nesterov=False),
    Adam(weight_decay=0.1),
    AdamW(),
    RMSProp(),
    RMSProp(momentum=0.9),
    SGD(undecayed="norms_and_biases"),
    AdamW(undecayed="norms_and_biases"),
)
EVERY = pytest.mark.parametrize("settings", CHOICES, ids=lambda value: f"{value.kind}-{getattr(value, 'momentum', '')}")


@dataclass
class Parts:
    """The parts of a learner that have a state."""

    body: nn.Module
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    named: dict[str, nn.Parameter]

    def step(self, number: int) -> None:
        images = torch.rand(6, 3, 8, 8, generator=generator("state", number))
        features = self.body(images)
        loss = nn.functional.cross_entropy(self.objective(features.mean((2, 3))), torch.arange(6) % 4)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def pack(self) -> LearnerState:
        return pack_state(self.body, self.objective, self.optimizer, self.named, {"steps": 2, "list": [1, None]})

    def unpack(self, state: LearnerState) -> object:
        return unpack_state(state, self.body, self.objective, self.optimizer, self.named)


def make(settings: Optimizer, seed: int, layout: torch.memory_format = torch.contiguous_format) -> Parts:
    torch.set_num_threads(1)
    with seeded("state", "weights", seed):
        body = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3))
        objective = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    body = body.to(memory_format=layout)
    named = dict(body.named_parameters(prefix="body")) | dict(objective.named_parameters(prefix="auxiliary"))
    return Parts(body, objective, make_optimizer(settings, named.values()), named)


def through_disk(state: LearnerState) -> LearnerState:
    return LearnerState(safetensors.torch.load(safetensors.torch.save(state.tensors)), state.extra)


def weights(parts: Parts) -> dict[str, Tensor]:
    return {**parts.body.state_dict(prefix="b."), **parts.objective.state_dict(prefix="o.")}


@EVERY
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fresh_learner_goes_on_bit_for_bit(settings: Optimizer, layout: torch.memory_format) -> None:
    straight = make(settings, 1, layout)
    for number in range(4):
        straight.step(number)

    first = make(settings, 1, layout)
    for number in range(2):
        first.step(number)
    second = make(settings, 2, layout)
    second.step(9)
    assert second.unpack(through_disk(first.pack())) == {"steps": 2, "list": [1, None]}
    for number in range(2, 4):
        second.step(number)

    expected, found = weights(straight), weights(second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    one, other = straight.pack().tensors, second.pack().tensors
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@EVERY
def test_a_state_is_a_copy_in_both_directions(settings: Optimizer) -> None:
    parts = make(settings, 1)
    parts.step(0)
    state = parts.pack()
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    parts.step(1)
    assert all(torch.equal(before[name], state.tensors[name]) for name in before)
    other = make(settings, 2)
    other.unpack(state)
    other.step(1)
    assert all(torch.equal(before[name], state.tensors[name]) for name in before)


def test_a_state_before_the_first_step_has_no_slots() -> None:
    fresh = make(Adam(), 1).pack()
    assert not any(name.startswith("optimizer.") for name in fresh.tensors)
    used = make(Adam(), 2)
    used.step(0)
    used.unpack(fresh)
    assert not any(name.startswith("optimizer.") for name in used.pack().tensors)


def test_names_tell_what_belongs_to_whom() -> None:
    parts = make(Adam(), 1)
    parts.step(0)
    found = parts.pack().tensors
    assert {name.partition(".")[0] for name in found} == {"body", "auxiliary", "optimizer"}
    for name in ("body.0.weight", "body.1.running_mean", "body.1.num_batches_tracked", "auxiliary.3.bias"):
        assert name in found
    slots = {name.rpartition(".")[2] for name in found if name.startswith("optimizer.")}
    assert slots == {"step", "exp_avg", "exp_avg_sq"}
    assert found["optimizer.body.0.weight.exp_avg"].shape == (5, 3, 3, 3)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_state_of_another_learner_is_refused(change: str) -> None:
    parts = make(SGD(), 1)
    state = parts.pack()
    if change == "missing":
        del state.tensors["body.0.weight"]
    elif change == "unknown":
        state.tensors["auxiliary.9.weight"] = torch.zeros(1)
    else:
        state.tensors["body.0.weight"] = torch.zeros(5, 3, 1, 1)
    with pytest.raises(RunError, match="does not fit this learner"):
        parts.unpack(state)


@EVERY
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_slots_of_another_optimizer_are_refused(settings: Optimizer, change: str) -> None:
    parts = make(settings, 1)
    parts.step(0)
    state = parts.pack()
    slots = [name for name in state.tensors if name.startswith("optimizer.body.0.weight.")]
    if change == "missing" and slots:
        del state.tensors[slots[-1]]
    else:
        state.tensors["optimizer.body.0.weight.other"] = torch.zeros(5, 3, 3, 3)
    with pytest.raises(RunError, match=r"of body\.0\.weight the optimizer would remember"):
        make(settings, 2).unpack(state)

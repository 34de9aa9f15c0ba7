"""What do the loops of cohorts and of a teacher share: networks, their batches, steps and weights, and divergences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import engine
from engine import backbones
from engine.data import open_source
from engine.streams import generator

# 4 steps an epoch, the last of 24 images; 8 steps are no multiple of 3, the interval of codistillation.
IMAGES, BATCH, CLASSES = 120, 32, 10
SMALL = (
    *("backbone.name=resnet8", "backbone.widths=4,4,4", "epochs=2", "seed=3"),
    *(f"data.train_limit={IMAGES}", "data.test_limit=50", f"data.batch_size={BATCH}"),
)


def _recipe(*words: str) -> engine.Recipe:
    recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), SMALL)
    return engine.apply_overrides(recipe, plan, words)[0]


def _train(recipe: engine.Recipe, folder: Path) -> engine.Run:
    return engine.load(engine.train(recipe, engine.Plan(executor="process"), folder).run_dir)


def _network(recipe: engine.Recipe, place: int = 0) -> nn.Sequential:
    return backbones.build(recipe.backbone, CLASSES, (1, 8, 8), recipe.seed, place)


def _optimizer(*modules: nn.Module) -> torch.optim.SGD:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def _steps(recipe: engine.Recipe, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield step, normalised images and labels; only the stored images and the documented order are shared."""
    source = open_source(recipe.data, recipe.seed)
    facts = source.facts
    first = [source.batch(0, step) for step in range(source.steps_per_epoch())]
    by_index = {int(i): (x, y) for b in first for i, x, y in zip(b.indices, b.images, b.labels, strict=True)}
    source.close()
    indices, images = sorted(by_index), len(by_index)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (facts.mean, facts.std))
    starts = range(0, images, BATCH)
    for epoch in range(recipe.epochs):
        order = torch.randperm(images, generator=generator(recipe.seed, "order", epoch)).tolist()
        for place, start in enumerate(starts):
            step = epoch * len(starts) + place
            angle = torch.tensor(torch.pi * step / (recipe.epochs * len(starts)), dtype=torch.float64)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = 0.5 * 0.1 * (1 + torch.cos(angle).item())
            chosen = [by_index[indices[where]] for where in order[start : start + BATCH]]
            pixels = torch.stack([torch.from_numpy(x) for x, _ in chosen]).float() / 255
            yield step, (pixels - mean) / std, torch.tensor([int(y) for _, y in chosen])


def _learn(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _state(run: engine.Run, name: str) -> dict[str, Tensor]:
    """Return weights and buffers of a network, of whose segments each is a learner."""
    learners = [learner for learner in run.checkpoint.states if learner.split("_")[0] == name]
    tensors = {key: value for each in learners for key, value in run.checkpoint.states[each].tensors.items()}
    return {key.removeprefix("body."): value for key, value in tensors.items() if key.startswith("body.")}


def _assert_equal(found: dict[str, Tensor], network: nn.Module) -> None:
    state = network.state_dict()
    assert found.keys() == state.keys()
    assert any("running_var" in name for name in state)
    for name, value in state.items():
        assert torch.equal(found[name], value), name


def mean_of_kl(own: Tensor, others: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    return sum_of_kl(own, others, temperature) / len(others)


def sum_of_kl(own: Tensor, others: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    student = F.log_softmax(own / temperature, dim=1)
    teachers = [F.log_softmax(other / temperature, dim=1) for other in others]
    each = [F.kl_div(student, teacher, log_target=True, reduction="batchmean") for teacher in teachers]
    return torch.stack(each).sum() * temperature**2

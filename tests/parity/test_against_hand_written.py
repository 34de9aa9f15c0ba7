"""Training against loops written by hand, which use none of the engine's training code, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import engine
from engine import backbones
from engine.data import open_source
from engine.objectives import cifar_decoder, conv_head, linear_head
from engine.streams import generator, seeded

IMAGES, CLASSES = 120, 10


def _recipe(name: str, *words: str) -> engine.Recipe:
    base = [f"data.train_limit={IMAGES}", "data.test_limit=50", "data.batch_size=50", "epochs=2", "seed=3"]
    return engine.apply_overrides(engine.load_recipe(name), engine.Plan(), [*base, *words])[0]


def _batches(recipe: engine.Recipe) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return normalised images, labels and pixels; only the stored images and the documented order are shared."""
    source = open_source(recipe.data, recipe.seed)
    first = [source.batch(0, step) for step in range(source.steps_per_epoch())]
    by_index = {int(i): (x, y) for b in first for i, x, y in zip(b.indices, b.images, b.labels, strict=True)}
    indices = sorted(by_index)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (source.facts.mean, source.facts.std))
    batches = []
    for epoch in range(recipe.epochs):
        order = torch.randperm(IMAGES, generator=generator(recipe.seed, "order", epoch)).tolist()
        for start in range(0, IMAGES, 50):
            chosen = [by_index[indices[place]] for place in order[start : start + 50]]
            pixels = torch.stack([torch.from_numpy(x) for x, _ in chosen]).float() / 255
            batches.append(((pixels - mean) / std, torch.tensor([int(y) for _, y in chosen]), pixels))
    source.close()
    return batches


def _network(recipe: engine.Recipe) -> nn.Sequential:
    return backbones.build(recipe.backbone, CLASSES, (1, 8, 8), recipe.seed)


def _optimizer(*modules: nn.Module) -> torch.optim.SGD:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)


def _rate(step: int, steps: int) -> float:
    return 0.5 * 0.1 * (1 + torch.cos(torch.tensor(torch.pi * step / steps, dtype=torch.float64)).item())


def _trained(recipe: engine.Recipe, folder: Path) -> dict[str, Tensor]:
    result = engine.train(recipe, engine.Plan(executor="process"), folder)
    return engine.load(result.run_dir).network().state_dict()


def _assert_equal(trained: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert trained.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(trained[name], value), name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("end_to_end_digits", ()),
        ("infopro_digits", ("method.num_segments=1",)),
        ("dgl_digits", ("method.num_segments=1",)),
    ],
)
def test_one_segment_is_plain_training(name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    recipe = _recipe(name, *words)
    trained = _trained(recipe, tmp_path / "run")

    network, batches = _network(recipe), _batches(recipe)
    optimizer = _optimizer(network)
    for step, (images, labels, _) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = _rate(step, len(batches))
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    _assert_equal(trained, network.state_dict())


def test_greedy_is_a_loop_with_detach(tmp_path: Path) -> None:
    recipe = _recipe("greedy_digits", "method.num_segments=2")
    trained = _trained(recipe, tmp_path / "run")

    network, batches = _network(recipe), _batches(recipe)
    first, second = network[:4], network[4:]
    with seeded(recipe.seed, "segment0", "auxiliary"):
        head = linear_head((8, 4, 4), CLASSES)
    optimizers = [_optimizer(first, head), _optimizer(second)]
    for step, (images, labels, _) in enumerate(batches):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = _rate(step, len(batches))
            optimizer.zero_grad()
        features = first(images)
        F.cross_entropy(head(features), labels).backward()
        F.cross_entropy(second(features.detach()), labels).backward()
        for optimizer in optimizers:
            optimizer.step()

    _assert_equal(trained, network.state_dict())


def test_infopro_is_a_loop_with_detach_and_a_decoder(tmp_path: Path) -> None:
    weights = ("method.reconstruction_weight=5,0.5", "method.classification_weight=0.25,2")
    recipe = _recipe("infopro_digits", "method.num_segments=3", *weights)
    trained = _trained(recipe, tmp_path / "run")

    network, batches = _network(recipe), _batches(recipe)
    # 7 blocks in 3 segments: boundaries round(7 / 3) = 2 and round(14 / 3) = 5.
    bodies = [network[:2], network[2:5], network[5:]]
    shapes = [(4, 8, 8), (8, 4, 4)]
    auxiliaries = []
    for index, shape in enumerate(shapes):
        with seeded(recipe.seed, f"segment{index}", "auxiliary"):
            auxiliaries.append((cifar_decoder(shape, (1, 8, 8)), conv_head(shape, CLASSES, 16)))
    optimizers = [
        _optimizer(bodies[0], *reversed(auxiliaries[0])),
        _optimizer(bodies[1], *reversed(auxiliaries[1])),
        _optimizer(bodies[2]),
    ]
    for step, (images, labels, pixels) in enumerate(batches):
        features = images
        for index, (body, optimizer) in enumerate(zip(bodies, optimizers, strict=True)):
            optimizer.param_groups[0]["lr"] = _rate(step, len(batches))
            optimizer.zero_grad()
            output = body(features)
            if index == 2:
                loss = F.cross_entropy(output, labels)
            else:
                decoder, head = auxiliaries[index]
                lambda_1, lambda_2 = [(5.0, 0.25), (0.5, 2.0)][index]
                reconstruction = F.binary_cross_entropy_with_logits(decoder(output), pixels)
                loss = lambda_2 * F.cross_entropy(head(output), labels) + lambda_1 * reconstruction
            loss.backward()
            optimizer.step()
            features = output.detach()

    _assert_equal(trained, network.state_dict())

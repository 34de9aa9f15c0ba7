"""Are the methods that teach one network by itself the published ones, step by step, and plain training without it?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor, nn

import engine
from engine import backbones
from engine.data import Augmenter, Batch, Facts, open_source
from engine.errors import RecipeError
from engine.knowledge import merge_changes
from engine.knowledge.mixing import draw_mixing
from engine.learners import Learner
from engine.methods import method_of
from engine.recipes import METHODS, Augmentation, Backbone, Recipe
from engine.streams import seeded

RAY_CPUS = 2

Make = Callable[..., Recipe]
KINDS = ("label_smoothing", "data_mix", "one", "cs_kd", "ps_kd", "lwr", "dlb")
CPU = torch.device("cpu")
STEPS = 4
PLAIN: dict[str, Any] = {"data": {"augmentation": Augmentation()}}


@pytest.fixture
def make(tiny_recipe: Make) -> Make:
    """A function: kind and settings of a method, and what else is changed, to a recipe of 4 steps per epoch."""

    def build(kind: str, changes: dict[str, Any] | None = None, **settings: Any) -> Recipe:
        method: Any = TypeAdapter(METHODS[kind]).validate_python({"kind": kind, **settings})
        return tiny_recipe(**{**(changes or {}), "method": method})

    return build


def data_of(recipe: Recipe) -> tuple[Facts, list[Batch]]:
    """Return what is known of the data, and the batches of the whole run."""
    source = open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)
    assert source.steps_per_epoch() == STEPS
    batches = [source.batch(epoch, step) for epoch in range(recipe.epochs) for step in range(STEPS)]
    source.close()
    return source.facts, batches


def learner_of(recipe: Recipe, facts: Facts) -> Learner:
    method = method_of(recipe)
    (name,) = method.team(recipe, facts).names
    learner = method.build_learner(recipe, facts, STEPS, name, CPU)
    assert isinstance(learner, Learner)
    return learner


def learn(learner: Learner, batches: list[Batch]) -> None:
    for batch in batches:
        learner.forward(batch, {})
        learner.update(batch, {})


def trained(recipe: Recipe) -> dict[str, Tensor]:
    """Return the weights and running statistics of the network after the run."""
    facts, batches = data_of(recipe)
    learner = learner_of(recipe, facts)
    learn(learner, batches)
    return learner.body.state_dict()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(value.equal(second[name]) for name, value in first.items())


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


# Each method as a loop that shares nothing with the engine but the batches, their augmentation and initial weights.


class Loop:
    """A network that is trained by hand."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.facts, self.batches = data_of(recipe)
        self.network = backbones.build(recipe.backbone, 10, (1, 8, 8), recipe.seed)
        self._augmenter = Augmenter(recipe.data.augmentation, self.facts, recipe.seed, CPU)
        self.others: list[nn.Module] = []

    def pixels(self, batch: Batch) -> Tensor:
        return self._augmenter.training_pixels(batch)

    def predict(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels - self.facts.mean[0]) / self.facts.std[0])
        return logits

    def run(self, loss_of: Callable[[Batch, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """Take the steps of the run by the loss of each batch, its pixels and its labels."""
        parameters = [each for module in (self.network, *self.others) for each in module.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for batch in self.batches:
            optimizer.zero_grad()
            loss_of(batch, self.pixels(batch), torch.from_numpy(batch.labels)).backward()
            optimizer.step()
        return self.network.state_dict()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    log_student = (student / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(log_student, (teacher / temperature).softmax(dim=1), reduction="batchmean")


def label_smoothing(loop: Loop) -> dict[str, Tensor]:
    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        return soft_cross_entropy(loop.predict(pixels), 0.8 * F.one_hot(labels, 10) + 0.02)

    return loop.run(loss_of)


def data_mix(loop: Loop) -> dict[str, Tensor]:
    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        targets = F.one_hot(labels, 10).float()
        key = (loop.recipe.seed, "segment0", "mixing", batch.epoch, batch.step)
        mixing = draw_mixing(key, "compound", 0.7, 0.5, 1.0, batch.indices, 8, 8, False)
        # 2 epochs, of which the first half mixes nothing.
        if batch.epoch == 0 or mixing is None:
            return soft_cross_entropy(loop.predict(pixels), targets)
        share = mixing.share[:, None]
        mixed = pixels.clone()
        for row, partner in enumerate(mixing.partner.tolist()):
            if mixing.box is None:
                mixed[row] = mixing.share[row] * pixels[row] + (1 - mixing.share[row]) * pixels[partner]
            else:
                top, bottom, left, right = mixing.box
                mixed[row, :, top:bottom, left:right] = pixels[partner, :, top:bottom, left:right]
        return soft_cross_entropy(loop.predict(mixed), share * targets + (1 - share) * targets[mixing.partner])

    return loop.run(loss_of)


def cs_kd(loop: Loop) -> dict[str, Tensor]:
    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        half = len(labels) // 2
        assert labels[:half].equal(labels[half:])
        logits = loop.predict(pixels[:half])
        with torch.no_grad():
            others = loop.predict(pixels[half:])
        return F.cross_entropy(logits, labels[:half]) + 0.5 * divergence(others, logits, 4.0)

    return loop.run(loss_of)


def ps_kd(loop: Loop) -> dict[str, Tensor]:
    past: dict[int, Tensor] = {}

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        logits = loop.predict(pixels)
        targets = F.one_hot(labels, 10).float()
        if batch.epoch:
            share = 0.8 * (batch.epoch + 1) / 3
            targets = (1 - share) * targets + share * torch.stack([past[index] for index in batch.indices.tolist()])
        for index, row in zip(batch.indices.tolist(), logits.detach().softmax(dim=1), strict=True):
            kept = row.half().float()
            past[index] = kept / kept.sum()
        return soft_cross_entropy(logits, targets)

    return loop.run(loss_of)


def lwr(loop: Loop) -> dict[str, Tensor]:
    said: dict[int, Tensor] = {}
    published: dict[int, Tensor] = {}

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        if batch.step == 0 and batch.epoch in (2, 4):
            published.update(said)
        logits = loop.predict(pixels)
        for index, row in zip(batch.indices.tolist(), logits.detach(), strict=True):
            said[index] = (row - row.max()).half().float()
        past, share = 2 * ((batch.epoch + 1) // 2) / 6 if batch.epoch >= 2 else 0.0, 0.1
        loss = (share + (1 - past) * (1 - share)) * F.cross_entropy(logits, labels)
        if not published:
            return loss
        teacher = torch.stack([published[index] for index in batch.indices.tolist()])
        return loss + past * (1 - share) * divergence(teacher, logits, 5.0)

    return loop.run(loss_of)


def dlb(loop: Loop) -> dict[str, Tensor]:
    return dlb_with(loop, 0.5)


def dlb_with(loop: Loop, weight: float) -> dict[str, Tensor]:
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        half = len(labels) // 2
        logits = loop.predict(pixels[:half])
        previous = kept.pop() if kept else None
        kept.append((pixels[half:], labels[half:], logits.detach()))
        if previous is None:
            return F.cross_entropy(logits, labels[:half])
        again, again_labels, old = previous
        new = loop.predict(again)
        both = F.cross_entropy(torch.cat([new, logits]), torch.cat([again_labels, labels[:half]]))
        return both + weight * divergence(old, new, 3.0)

    return loop.run(loss_of)


def one(loop: Loop) -> dict[str, Tensor]:
    """The last stage of ResNet-14 begins with the sixth of its eight blocks."""
    recipe = loop.recipe
    copies = [backbones.build(recipe.backbone, 10, (1, 8, 8), recipe.seed, peer)[5:] for peer in (1, 2)]
    with seeded(recipe.seed, "segment0", "auxiliary"):
        linear = nn.Linear(4, 3)
    norm = nn.BatchNorm1d(3)
    loop.others = [*copies, linear, norm]

    def loss_of(batch: Batch, pixels: Tensor, labels: Tensor) -> Tensor:
        shared = loop.network[:5]((pixels - loop.facts.mean[0]) / loop.facts.std[0])
        logits = [last(shared) for last in (loop.network[5:], *copies)]
        gate = nn.ReLU()(norm(linear(shared.mean(dim=(2, 3))))).softmax(dim=1)
        ensemble = sum(gate[:, place, None] * each for place, each in enumerate(logits))
        assert isinstance(ensemble, Tensor)
        loss = sum(F.cross_entropy(each, labels) for each in [*logits, ensemble])
        ramp = torch.exp(torch.tensor(-5 * (1 - batch.epoch / 2) ** 2))
        teacher = (ensemble.detach() / 3).softmax(dim=1) + 1e-7
        for each in logits:
            student = (each / 3).log_softmax(dim=1)
            loss = loss + 0.5 * ramp * 9 * F.kl_div(student, teacher, reduction="batchmean")
        assert isinstance(loss, Tensor)
        return loss

    return loop.run(loss_of)


LOOPS: dict[str, tuple[Callable[[Loop], dict[str, Tensor]], int, dict[str, Any]]] = {
    "label_smoothing": (label_smoothing, 2, {"smoothing": 0.2}),
    "data_mix": (
        data_mix,
        2,
        {"style": "compound", "mixing_probability": 0.7, "mixup_alpha": 0.5, "warmup_fraction": 0.5},
    ),
    "one": (one, 2, {"weight": 0.5, "ramp_epochs": 2}),
    "cs_kd": (cs_kd, 2, {"weight": 0.5}),
    "ps_kd": (ps_kd, 3, {}),
    "lwr": (lwr, 5, {"interval": 2, "horizon": 6}),
    "dlb": (dlb, 2, {"weight": 0.5}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_loop_written_by_hand(kind: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, epochs, settings = LOOPS[kind]
    # Without a kink, where the rounding of one processor would tell on which side of it a unit lies.
    monkeypatch.setattr(nn.ReLU, "forward", lambda _, features: F.softplus(features))
    recipe = make(kind, {"epochs": epochs, "seed": 3}, **settings)
    assert_close(trained(recipe), loop(Loop(recipe)))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_not_plain_training(kind: str, make: Make) -> None:
    """Without augmentation, whose random numbers depend on how many images are augmented."""
    _, epochs, settings = LOOPS[kind]
    changes = {**PLAIN, "epochs": epochs}
    found, plain = trained(make(kind, changes, **settings)), trained(make("end_to_end", changes))
    assert max(float((found[name] - plain[name]).abs().max()) for name in found if "weight" in name) > 1e-2


@pytest.mark.parametrize(
    ("kind", "settings", "changes"),
    [
        ("label_smoothing", {"smoothing": 0.0}, {}),
        ("data_mix", {"mixing_probability": 0.0}, {}),
        ("data_mix", {"warmup_fraction": 1.0}, {}),
        ("ps_kd", {"last_share": 0.0}, {}),
        ("ps_kd", {}, {"epochs": 1}),
        ("lwr", {"interval": 2}, {}),
        ("lwr", {"interval": 1, "label_share": 1.0}, {}),
        ("cs_kd", {"weight": 0.0}, PLAIN),
    ],
)
def test_without_what_it_adds_it_is_plain_training(
    kind: str, settings: dict[str, Any], changes: dict[str, Any], make: Make
) -> None:
    assert same(trained(make(kind, changes, **settings)), trained(make("end_to_end", changes)))


def test_dlb_of_weight_0_is_cross_entropy_of_both_views(make: Make) -> None:
    recipe = make("dlb", {"seed": 3}, weight=0.0)
    assert_close(trained(recipe), dlb_with(Loop(recipe), 0.0))


@pytest.mark.parametrize(("kind", "images"), [("cs_kd", 24), ("dlb", 24), ("lwr", 12)])
def test_paired_images_are_part_of_the_message(kind: str, images: int, make: Make) -> None:
    recipe = make(kind)
    facts, batches = data_of(recipe)
    assert len(batches[0].labels) == images
    (program,) = method_of(recipe).team(recipe, facts).training
    assert program.bytes_per_step == images * (64 + 8 + 8)


def test_the_branches_of_one_are_copies_with_weights_of_their_own(make: Make) -> None:
    recipe = make("one", num_branches=4)
    facts, _ = data_of(recipe)
    learner = learner_of(recipe, facts)
    branches = learner.objective.terms["ensemble"].branches
    assert isinstance(branches, nn.ModuleList)
    last = learner.body[5:].state_dict()
    assert [branch.state_dict().keys() for branch in branches] == [last.keys()] * 3
    weights = [last["layer3_0.conv1.weight"], *(branch.state_dict()["layer3_0.conv1.weight"] for branch in branches)]
    assert not any(first.equal(second) for first, second in itertools.combinations(weights, 2))
    (summary,) = method_of(recipe).team(recipe, facts).learners
    copied = sum(parameter.numel() for parameter in learner.body[5:].parameters())
    # Linear layer and batch norm of the gate, from 4 channels to 4 branches.
    assert summary.auxiliary_parameters == 3 * copied + 4 * 4 + 4 + 2 * 4


def test_one_needs_a_last_stage(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "flat.py"
    file.write_text(
        "from collections import OrderedDict\n"
        "from torch import nn\n"
        "def flat(num_classes, image_shape):\n"
        "    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
        "    first, second = nn.Conv2d(image_shape[0], 4, 3, stride=2), nn.Conv2d(4, 4, 1)\n"
        "    return nn.Sequential(OrderedDict(first=first, second=second, end=end))\n"
    )
    recipe = make("one", {"backbone": Backbone(name=f"{file}:flat")})
    facts, _ = data_of(recipe)
    with pytest.raises(RecipeError, match="no block of .* behind the first one"):
        method_of(recipe).team(recipe, facts)


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_label_train(kind: str, make: Make) -> None:
    recipe = make(kind, {"data": {"labelled_fraction": 0.5}, "epochs": 3}, **({"interval": 1} if kind == "lwr" else {}))
    assert all(bool(value.isfinite().all()) for value in trained(recipe).values())


@pytest.mark.parametrize("kind", KINDS)
def test_another_learner_goes_on_from_the_state(kind: str, make: Make) -> None:
    """Knowledge comes in two pieces, of which the second holds only what changed."""
    _, epochs, settings = LOOPS[kind]
    recipe = make(kind, {"epochs": epochs}, **settings)
    facts, batches = data_of(recipe)
    straight, stopped, resumed = (learner_of(recipe, facts) for _ in range(3))
    learn(straight, batches)
    middle = len(batches) // 2 + 1
    learn(stopped, batches[:3])
    pieces = [stopped.ask_state().knowledge]
    learn(stopped, batches[3:middle])
    state = stopped.ask_state()
    if state.knowledge:
        state.knowledge = merge_changes([*pieces, state.knowledge])
    resumed.restore(state)
    learn(resumed, batches[middle:])
    first, second = straight.ask_state(), resumed.ask_state()
    assert same(first.tensors, second.tensors)
    assert first.extra["meters"] == second.extra["meters"]
    assert (kind in ("ps_kd", "lwr")) == bool(first.knowledge)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("kind", ["one", "dlb", "ps_kd"])
def test_the_process_and_ray_give_the_same_weights(
    kind: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    alone = engine.train(make(kind), engine.Plan(executor="process"), tmp_path / "process")
    on_ray = engine.train(make(kind), engine.Plan(executor="ray", window=2), tmp_path / "ray")
    assert alone.weights_sha256 == on_ray.weights_sha256
    assert alone.metrics == on_ray.metrics

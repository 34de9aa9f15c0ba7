"""Which trainings with sub-networks and group knowledge are the same, bit for bit, and which are not?"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import engine
from engine.checkpoints import require_checkpoint
from engine.learners.optimization import make_optimizer
from engine.recipes import SGD
from engine.streams import generator

# 3 steps an epoch, the last of 8 images; one block of each of the 3 stages can be left out.
SMALL = (
    *("backbone.name=resnet14", "backbone.widths=4,4,4", "seed=3", "epochs=2", "data.augmentation.crop_padding=1"),
    *("data.train_limit=72", "data.test_limit=20", "data.batch_size=32"),
)
ALONE = ("method.kind=end_to_end",)
# Random changes of a batch are others where it has paired images.
UNCHANGED = "data.augmentation.crop_padding=0"
AS_TRAINED = "method.recalibration_images=0"
ST, DEPTH = ("method.kind=st", AS_TRAINED), ("method.kind=stochastic_depth",)
GKT, MKF = ("method.kind=gkt", AS_TRAINED), ("method.kind=mkf", AS_TRAINED)
# The store is filled first, then every batch is mixed.
FULLY = (*MKF, "method.warmup_fraction=0.5", "method.mixing_probability=1")
MIXED, LONG = (*FULLY, "epochs=4"), (*FULLY, "epochs=10")
DROPOUT = ("backbone.name=wrn_16_1", "backbone.widths=null", "backbone.dropout=0.3")

Train = Callable[..., engine.Result]


def _recipe(*words: str) -> engine.Recipe:
    recipe, plan = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), engine.Plan(), SMALL)
    return engine.apply_overrides(recipe, plan, words)[0]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train with these words, or give the result of the test before that did."""
    results: dict[tuple[str, ...], engine.Result] = {}

    def trained(*words: str) -> engine.Result:
        if words not in results:
            plan = engine.Plan(executor="process")
            results[words] = engine.train(_recipe(*words), plan, tmp_path_factory.mktemp("runs") / "run")
        return results[words]

    return trained


def _state(result: engine.Result) -> dict[str, Tensor]:
    found: dict[str, Tensor] = engine.load(result.run_dir).network().state_dict()
    return found


def _scores(result: engine.Result) -> dict[str, float]:
    """Return what is reported of the whole team, whatever its learners are called."""
    return {name: value for name, value in result.metrics.items() if name.startswith("test/")}


def _tensors(run: Path, step: int) -> dict[str, Tensor]:
    """Return what one checkpoint of several holds of the network and of its knowledge."""
    name, alone = f"step-{step:06d}", run / f"only-{step}"
    shutil.copytree(run / "checkpoints" / name, alone / name)
    state = require_checkpoint(alone).states["network"]
    return state.tensors | {f"knowledge.{name}": value for name, value in state.knowledge.items()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((*GKT, "method.num_groups=1"), ALONE),
        ((*GKT, "method.num_groups=1", "method.distillation_weight=0"), ALONE),
        ((*GKT, "method.num_groups=1", *DROPOUT), (*ALONE, *DROPOUT)),
        ((*GKT, "method.num_groups=1", "method.every_group=true"), ALONE),
        ((*MKF, "method.num_groups=1", "method.mixing_probability=0"), ALONE),
        ((*ST, "method.weight=0"), ALONE),
        ((*ST, "method.weight=0", "method.num_subnetworks=3"), ALONE),
        ((*DEPTH, "method.last_survival=1"), ALONE),
        ((*DEPTH, "method.last_survival=1", *DROPOUT), (*ALONE, *DROPOUT)),
        ((*MKF, "method.mixing_probability=0"), GKT),
        (
            (*MKF, "method.mixing_probability=0", "method.mixing_partners=second_batch", UNCHANGED),
            (*GKT, UNCHANGED),
        ),
        ((*MKF, "method.warmup_fraction=1", "method.mixing_probability=1"), GKT),
        ((*MKF, "method.warmup_fraction=1", "method.fraction=exact", "method.measure_fraction_every=1"), GKT),
        ((*MIXED, "method.measure_fraction_every=1"), MIXED),
        ((*MIXED, "method.measure_fraction_every=2", "method.fraction=exact"), (*MIXED, "method.fraction=exact")),
    ],
    ids=[
        *("one_group", "one_group_weightless", "one_group_dropout", "every_of_one_group", "one_group_unmixed"),
        *("st_weightless", "st_weightless_three", "sure_depth", "sure_depth_dropout"),
        *("never_mixed", "never_mixed_second_batch", "warm_up", "warm_up_measured", "measured", "measured_at_times"),
    ],
)
def test_the_same_training(one: tuple[str, ...], other: tuple[str, ...], train: Train) -> None:
    found, expected = train(*one), train(*other)
    assert found.weights_sha256 == expected.weights_sha256
    assert _scores(found) == _scores(expected) != {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GKT, ALONE),
        (GKT, (*GKT, "method.distillation_weight=0")),
        (GKT, (*GKT, "method.num_groups=2")),
        ((*GKT, "epochs=4"), (*GKT, "epochs=4", "method.averaging_weight=0.9")),
        (GKT, (*GKT, "method.temperature=3")),
        (GKT, (*GKT, "method.sampling=uniform")),
        (GKT, (*GKT, "method.top_k=1")),
        ((*GKT, "method.every_group=true"), GKT),
        ((*MKF, "method.mixing_probability=1"), GKT),
        (MIXED, (*GKT, "epochs=4")),
        (MIXED, (*MIXED, "method.mixing_partners=second_batch")),
        (MIXED, (*MIXED, "method.fraction=keep")),
        (MIXED, (*MIXED, "method.fraction=none")),
        (LONG, (*LONG, "method.fraction=shared")),
        (LONG, (*LONG, "method.fraction=exact")),
        (MIXED, (*MIXED, "method.cutmix_alpha=0.1", "method.mixup_alpha=0.1")),
        ((*MIXED, "method.every_group=true"), MIXED),
        (ST, ALONE),
        (ST, (*ST, "method.num_subnetworks=2")),
        (ST, (*ST, "method.temperature=3")),
        (ST, (*ST, "method.stage_choices=1,1,2")),
        (DEPTH, ALONE),
        (DEPTH, (*DEPTH, "method.last_survival=0.9")),
    ],
)
def test_another_training(one: tuple[str, ...], other: tuple[str, ...], train: Train) -> None:
    found, expected = train(*one), train(*other)
    assert found.weights_sha256 != expected.weights_sha256
    assert all(value.isfinite().all() for value in _state(found).values())


def test_recalibration_changes_statistics_and_nothing_else(train: Train) -> None:
    """A weightless ST is end-to-end training also where statistics are measured anew."""
    found, expected = _state(train("method.kind=st", "method.weight=0")), _state(train(*ALONE))
    differing = {name for name, value in expected.items() if not value.equal(found[name])}
    assert differing == {name for name in expected if name.endswith(("running_mean", "running_var"))}


def test_in_its_first_epochs_mixed_knowledge_is_group_knowledge(tmp_path: Path) -> None:
    plan = engine.Plan(executor="process", keep_checkpoints=9)
    mixed, unmixed = (
        engine.train(_recipe(*words), plan, tmp_path / words[0]).run_dir for words in (MIXED, (*GKT, "epochs=4"))
    )
    for step, same in ((3, True), (6, True), (9, False)):
        one, other = _tensors(mixed, step), _tensors(unmixed, step)
        assert len(one["knowledge.rows"]) > 0
        differing = {name for name in other if not (name in one and one[name].equal(other[name]))}
        assert not differing if same else {"body.classifier.fc.weight", "knowledge.values"} <= differing


@pytest.mark.parametrize("words", [GKT, (*MIXED, "method.fraction=exact"), (*GKT, "method.top_k=3")])
def test_knowledge_on_a_disk_is_knowledge_in_memory(words: tuple[str, ...], train: Train, tmp_path: Path) -> None:
    found, expected = train(*words, f"method.knowledge_folder={tmp_path}"), train(*words)
    assert found.weights_sha256 == expected.weights_sha256
    stores = [engine.load(result.run_dir).checkpoint.states["network"].knowledge for result in (found, expected)]
    assert stores[0].keys() == stores[1].keys()
    assert len(stores[0]["rows"]) > 0
    assert all(value.equal(stores[1][name]) for name, value in stores[0].items())


@pytest.mark.parametrize(
    "words",
    [GKT, (*MIXED, "method.mixing_partners=second_batch"), (*MIXED, "method.top_k=3", "method.fraction=exact")],
    ids=["gkt", "second_batch", "top_k"],
)
def test_knowledge_that_others_keep_is_knowledge_of_ones_own(words: tuple[str, ...], train: Train) -> None:
    assert train(*words, "method.store_learners=2").weights_sha256 == train(*words).weights_sha256


def test_all_but_one_class_are_almost_all_of_them(train: Train) -> None:
    """What the last class gets is what the others lack to 1, as it is without rounding."""
    full, most, least = (_state(train(*GKT, *words)) for words in ((), ("method.top_k=9",), ("method.top_k=1",)))
    names = [name for name in full if name.endswith("weight")]

    def apart(other: dict[str, Tensor]) -> float:
        return max(float((full[name] - other[name]).abs().max()) for name in names)

    assert 0 < apart(most) < 1e-4 < 1e-3 < apart(least)


def test_what_group_knowledge_changes_is_the_gradient_of_smaller_groups_alone(train: Train) -> None:
    """The first step of a loop trains the full network, which nobody teaches."""
    one_step = ("epochs=1", "data.train_limit=32")
    assert train(*GKT, *one_step).weights_sha256 == train(*ALONE, *one_step).weights_sha256
    two_steps = ("epochs=1", "data.train_limit=64")
    assert train(*GKT, *two_steps).weights_sha256 != train(*ALONE, *two_steps).weights_sha256


def test_blocks_that_were_left_out_stay_at_rest(tmp_path: Path) -> None:
    """Neither gradient nor momentum nor decay moves them, though all of these moved them in the step before."""
    plan = engine.Plan(executor="process", checkpoint_every_steps=1, keep_checkpoints=9)
    run = engine.train(_recipe(*GKT, "epochs=1", "method.num_groups=2"), plan, tmp_path / "run").run_dir
    one, other = (_tensors(run, step) for step in (1, 2))
    at_rest = {name.split(".")[1] for name in one if name.endswith("conv1.weight") and one[name].equal(other[name])}
    assert at_rest
    assert at_rest <= {"layer1_1", "layer2_1", "layer3_1"}
    for name, value in one.items():
        if name.startswith(("body.", "optimizer.")):
            block = name.partition("body.")[2].split(".")[0]
            assert value.equal(other[name]) == (block in at_rest), name
        if name.startswith("optimizer."):
            assert value.any(), name


@pytest.mark.parametrize(("words", "held"), [(("method.distillation_weight=0",), False), ((), True)])
def test_nothing_is_remembered_if_nothing_is_learned_from_it(words: tuple[str, ...], held: bool, train: Train) -> None:
    result = train(*GKT, *words)
    assert bool(result.memory_parts["network"].get("knowledge")) == held
    assert bool(engine.load(result.run_dir).checkpoint.states["network"].knowledge) == held


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_that_starts_at_zero_is_that_which_starts_with_the_first_gradient(nesterov: bool) -> None:
    """The buffers are there from the start, so that blocks that are left out at first can join later."""
    draws = generator("momentum")
    start, gradients = torch.randn(8, 3, 5, 5, generator=draws), torch.randn(4, 8, 3, 5, 5, generator=draws)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        ours, plain, late = (nn.Parameter(start.clone(memory_format=memory_format)) for _ in range(3))
        settings = SGD(learning_rate=0.1, momentum=0.9, nesterov=nesterov, weight_decay=1e-3)
        both = make_optimizer(settings, [ours, late])
        torchs = torch.optim.SGD([plain], 0.1, 0.9, weight_decay=1e-3, nesterov=nesterov, fused=True)
        for step, values in enumerate(gradients):
            gradient = values.clone(memory_format=memory_format)
            ours.grad, plain.grad, late.grad = gradient.clone(), gradient.clone(), gradient if step >= 2 else None
            both.step()
            torchs.step()
            assert ours.equal(plain)
            assert late.equal(start) == (step < 2)
        found.append(ours)
    assert found[0].equal(found[1])

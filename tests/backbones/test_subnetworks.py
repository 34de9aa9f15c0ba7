"""Are sub-networks what the papers say: droppable blocks, how they are drawn, what is computed, scaled and trained?"""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torchvision
from scipy import stats
from torch import Tensor, nn

from engine import backbones
from engine.backbones import SubNetworkSampler, droppable_stages, require_droppable, run_without, scaled_branches
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
DRAWS = 2000


def make(name: str, shape: tuple[int, int, int] = CIFAR, device: str = "cpu", **fields: Any) -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name=name, **fields), 10, shape, seed=0)


def stages_of(name: str, shape: tuple[int, int, int] = CIFAR, **fields: Any) -> tuple[tuple[str, ...], ...]:
    return droppable_stages(make(name, shape, "meta", **fields))


def layers(*last: int) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(f"layer{stage}_{index}" for index in range(1, final + 1)) for stage, final in enumerate(last, start=1)
    )


def features(*stages: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"features_{place}" for place in stage) for stage in stages)


def invented(*lengths: int) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{stage}_{index}" for index in range(length)) for stage, length in enumerate(lengths))


RESNET50 = layers(2, 3, 5, 2)
LARGE = features([1], [3], [5, 6], [8, 9, 10], [12], [14, 15])


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("resnet34", IMAGENET, RESNET50),
        ("resnet50", IMAGENET, RESNET50),
        ("resnet50", CIFAR, RESNET50),
        ("resnet32", CIFAR, layers(4, 4, 4)),
        ("resnet110", CIFAR, layers(17, 17, 17)),
        ("wrn_28_10", CIFAR, layers(3, 3, 3)),
        ("wrn_16_8", CIFAR, layers(1, 1, 1)),
        # Its very first block keeps the shape, unlike in wider ones.
        ("wrn_16_1", CIFAR, layers(1, 1, 1)),
        ("mobilenet_v3_large", IMAGENET, LARGE),
        ("mobilenet_v3_large", CIFAR, LARGE),
        ("mobilenet_v3_small", IMAGENET, features([3], [5, 6], [8], [10, 11])),
        # Without its stride the first block becomes one that can be dropped.
        ("mobilenet_v3_small", CIFAR, features([1], [3], [5, 6], [8], [10, 11])),
    ],
)
def test_droppable_blocks_are_those_of_the_table(
    name: str, shape: tuple[int, int, int], expected: tuple[tuple[str, ...], ...]
) -> None:
    assert stages_of(name, shape) == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet50", 12), ("resnet110", 51), ("wrn_28_10", 9), ("wrn_16_8", 3), ("mobilenet_v3_large", 10)],
)
def test_as_many_blocks_can_be_dropped_as_the_table_says(name: str, count: int) -> None:
    assert len(list(itertools.chain(*stages_of(name, IMAGENET)))) == count


def test_the_smallest_sub_network_of_a_cifar_resnet_has_one_block_in_each_stage() -> None:
    network = make("resnet32", widths=(4, 4, 8), shortcut="identity", device="meta")
    dropped = set(itertools.chain(*droppable_stages(network)))
    assert [name for name in network._modules if name not in dropped] == [
        "stem",
        "layer1_0",
        "layer2_0",
        "layer3_0",
        "classifier",
    ]


class Doubling(nn.Module):
    bypassable = True

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Tensor:
        return values + self.branch(values)


class DoublingWithEnd(Doubling):
    @property
    def branch_end(self) -> nn.Module:
        return self.branch


def own(*kinds: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) if kind is nn.Linear else kind() for kind in kinds))


def test_a_network_of_ones_own_needs_bypassable_alone() -> None:
    network = own(nn.Linear, Doubling, Doubling, nn.Linear, nn.Linear, Doubling, nn.Linear)
    assert require_droppable(network, "mine.py:net") == (("1", "2"), ("5",))
    values = torch.randn(3, 4)
    expected = network[6](network[5](network[4](network[3](network[1](network[0](values))))))
    assert torch.equal(run_without(network, values, {"2"}), expected)


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet8", "shufflenet_v2_x0_5"])
def test_a_network_without_droppable_blocks_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"backbone\.name={name}: none of its .* bypassable = True"):
        require_droppable(make(name, device="meta"), name)


# What is computed.


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("name", "dropped", "places"),
    [
        ("resnet34", ["layer1_2", "layer3_4", "layer3_5"], ["layer1.2", "layer3.4", "layer3.5"]),
        ("mobilenet_v3_large", ["features_1", "features_10"], ["features.1", "features.10"]),
        ("mobilenet_v2", ["features_3", "features_16"], ["features.3", "features.16"]),
    ],
)
def test_it_computes_what_torchvisions_network_does(
    name: str, dropped: list[str], places: list[str], training: bool
) -> None:
    options = {} if name == "resnet34" else {"dropout": 0.0}
    network = make(name, stem="imagenet", **options)
    reference = getattr(torchvision.models, name)(num_classes=10, **options)
    reference.load_state_dict(backbones.plain_state(network, name))
    network.train(training)
    reference.train(training)
    images = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(run_without(network, images, ()), reference(images))
    for place in places:
        reference.set_submodule(place, nn.Identity())
    torch.testing.assert_close(run_without(network, images, dropped), reference(images))


@pytest.mark.parametrize("name", ["resnet14", "wrn_16_1", "mobilenet_v3_small", "efficientnet_b0"])
def test_with_nothing_dropped_it_is_the_network_bit_for_bit(name: str) -> None:
    network = make(name).eval()
    images = torch.randn(2, *CIFAR)
    assert torch.equal(run_without(network, images, frozenset()), network(images))


def test_dropped_blocks_are_not_called_and_the_hooks_of_others_are() -> None:
    network = make("resnet14", widths=(4, 4, 4))
    called: list[str] = []
    for name, child in network.named_children():
        child.register_forward_hook(lambda module, inputs, output, name=name: called.append(name))
    run_without(network, torch.randn(2, *CIFAR), {"layer1_1", "layer3_1"})
    assert called == ["stem", "layer1_0", "layer2_0", "layer2_1", "layer3_0", "classifier"]


def test_dropped_blocks_have_no_gradient_and_do_not_move() -> None:
    network = make("resnet14", widths=(4, 4, 4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    images = torch.randn(4, *CIFAR)
    # With a momentum and a gradient of the step before.
    network(images).sum().backward()
    optimizer.step()
    before = copy.deepcopy(network.state_dict())
    optimizer.zero_grad()
    run_without(network, images, {"layer2_1"}).square().sum().backward()
    assert all(parameter.grad is None for parameter in network.get_submodule("layer2_1").parameters())
    optimizer.step()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("layer2_1."), name


# How they are drawn.


def depths(stages: Sequence[Sequence[str]], dropped: frozenset[str]) -> tuple[int, ...]:
    return tuple(sum(name in dropped for name in stage) for stage in stages)


def groups_of(sampler: SubNetworkSampler, count: int, draws: int = DRAWS) -> list[tuple[frozenset[str], ...]]:
    return [sampler.draw((0, "test", step), count) for step in range(draws)]


def fits(counts: Counter[Any], expected: dict[Any, float], draws: int = DRAWS) -> bool:
    assert set(counts) <= set(expected), "something impossible was drawn"
    assert math.isclose(sum(expected.values()), 1.0)
    observed = [counts[outcome] for outcome in expected]
    return bool(stats.chisquare(observed, [draws * share for share in expected.values()]).pvalue > 1e-3)


def tail(length: int, decay: float) -> list[float]:
    weights = [decay**d for d in range(length + 1)]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("decay", [0.5, 0.25])
def test_depths_follow_the_exponential_rule(decay: float) -> None:
    # Stages of k = 3, 4 and 6 blocks, of which the first cannot be dropped.
    stages = invented(2, 3, 5)
    sampler = SubNetworkSampler(stages, "inherited", decay=decay, strict=False)
    drawn = [depths(stages, groups[1]) for groups in groups_of(sampler, 2)]
    for stage, names in enumerate(stages):
        assert fits(Counter(each[stage] for each in drawn), dict(enumerate(tail(len(names), decay))))
    if decay == 0.5:
        assert tail(5, decay) == pytest.approx([share / 63 for share in (32, 16, 8, 4, 2, 1)])


@pytest.mark.parametrize("rule", ["inherited", "ordered"])
def test_strict_draws_are_distributed_as_if_repeated_until_smaller(rule: Any) -> None:
    stages = invented(1, 2, 0, 1)
    joint = {
        outcome: math.prod(tail(len(names), 0.5)[d] for names, d in zip(stages, outcome, strict=True))
        for outcome in itertools.product(range(2), range(3), range(1), range(2))
    }
    nothing = joint.pop((0, 0, 0, 0))
    expected = {outcome: share / (1 - nothing) for outcome, share in joint.items()}
    drawn = Counter(depths(stages, groups[1]) for groups in groups_of(SubNetworkSampler(stages, rule), 2))
    assert fits(drawn, expected)


def test_a_grandchild_is_drawn_among_the_blocks_that_its_parent_has() -> None:
    stages = invented(3)
    sampler = SubNetworkSampler(stages, "inherited", strict=False)
    pairs = Counter(tuple(len(dropped) for dropped in groups[1:]) for groups in groups_of(sampler, 3))
    expected = {
        (first, first + more): tail(3, 0.5)[first] * tail(3 - first, 0.5)[more]
        for first in range(4)
        for more in range(4 - first)
    }
    assert fits(pairs, expected)


@pytest.mark.parametrize("stages", [RESNET50, layers(1, 1, 1), LARGE], ids=["resnet50", "wrn_16_8", "mobilenet_v3"])
def test_only_the_last_blocks_of_a_stage_go_and_children_lie_in_their_parents(
    stages: tuple[tuple[str, ...], ...],
) -> None:
    everything = frozenset(itertools.chain(*stages))
    for groups in groups_of(SubNetworkSampler(stages, "inherited"), 5, draws=200):
        assert groups[0] == frozenset()
        for parent, child in itertools.pairwise(groups):
            assert parent < child or parent == child == everything
        for dropped in groups:
            kept = zip(stages, depths(stages, dropped), strict=True)
            assert dropped == {name for stage, depth in kept for name in stage[len(stage) - depth :]}


def test_without_strictness_a_child_may_equal_its_parent() -> None:
    stages = layers(1, 1, 1)
    loose = groups_of(SubNetworkSampler(stages, "inherited", strict=False), 3)
    # (2/3)^3 = .30 in the first generation, and more in the second.
    assert sum(groups[1] == groups[0] for groups in loose) / DRAWS == pytest.approx(0.30, abs=0.03)
    assert sum(groups[2] == groups[1] for groups in loose) / DRAWS == pytest.approx(0.47, abs=0.03)


def test_strictness_holds_for_the_smallest_decay() -> None:
    sampler = SubNetworkSampler(invented(2, 3), "inherited", decay=1e-30)
    sizes = [[len(dropped) for dropped in groups] for groups in groups_of(sampler, 8, draws=50)]
    assert sizes == [[0, 1, 2, 3, 4, 5, 5, 5]] * 50


def test_ordered_draws_start_at_the_whole_network_each_time() -> None:
    groups = groups_of(SubNetworkSampler(RESNET50, "ordered", strict=False), 4)
    for place in (1, 2, 3):
        for stage, names in enumerate(RESNET50):
            drawn = Counter(depths(RESNET50, each[place])[stage] for each in groups)
            assert fits(drawn, dict(enumerate(tail(len(names), 0.5))))
    assert any(not each[2] >= each[1] for each in groups)


@pytest.mark.parametrize(
    ("name", "decay", "kept"),
    [
        ("resnet50", 0.5, (16, 13.22, 10.98)),
        ("resnet50", 0.25, (16, 14.78, 13.64)),
        ("wrn_28_10", 0.5, (12, 9.80, 8.04)),
        ("wrn_16_8", 0.5, (6, 5.00, 4.33)),
    ],
)
def test_mean_numbers_of_kept_blocks_are_those_that_the_rule_implies(
    name: str, decay: float, kept: tuple[float, float, float]
) -> None:
    groups = groups_of(SubNetworkSampler(stages_of(name), "inherited", decay=decay, strict=False), 3)
    means = [kept[0] - sum(len(each[group]) for each in groups) / DRAWS for group in range(3)]
    assert means == pytest.approx(kept, abs=0.12)


def test_uniform_keeps_ten_of_sixteen_blocks_on_average() -> None:
    groups = groups_of(SubNetworkSampler(RESNET50, "uniform"), 3)
    for group in (1, 2):
        drawn = [depths(RESNET50, each[group]) for each in groups]
        assert 16 - sum(map(sum, drawn)) / DRAWS == pytest.approx(10.0, abs=0.15)
        for stage, names in enumerate(RESNET50):
            most = len(names) + 1
            assert fits(Counter(each[stage] for each in drawn), dict.fromkeys(range(most), 1 / most))


def test_a_restricted_space_has_as_many_depths_as_its_choices_say() -> None:
    sampler = SubNetworkSampler(RESNET50, "uniform", choices=(1, 2, 4, 1))
    drawn = Counter(depths(RESNET50, groups[1]) for groups in groups_of(sampler, 2))
    assert fits(drawn, dict.fromkeys(itertools.product([0], range(2), range(4), [0]), 1 / 8))


@pytest.mark.parametrize("choices", [(1, 2, 4), (1, 2, 7, 1), (0, 2, 4, 1), (1, 2, 4, 1, 1)])
def test_choices_that_do_not_fit_are_refused(choices: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match=r"stage_choices=.*Expected 4 numbers .* at most \(3, 4, 6, 3\)"):
        SubNetworkSampler(RESNET50, "uniform", choices=choices)


def test_independent_blocks_survive_with_linearly_falling_probability() -> None:
    sampler = SubNetworkSampler(RESNET50, "independent", last_survival=0.4)
    names = list(itertools.chain(*RESNET50))
    expected = {name: 1 - place / 12 * 0.6 for place, name in enumerate(names, start=1)}
    assert sampler.survival() == pytest.approx(expected)
    assert sampler.survival()["layer4_2"] == pytest.approx(0.4)
    groups = groups_of(sampler, 2)
    for name, survives in expected.items():
        drawn = Counter(name in each[1] for each in groups)
        assert fits(drawn, {False: survives, True: 1 - survives}), name
    both = Counter(("layer3_5" in each[1], "layer4_1" in each[1]) for each in groups)
    pairs = itertools.product((False, True), repeat=2)
    chance = {name: (expected[name], 1 - expected[name]) for name in ("layer3_5", "layer4_1")}
    assert fits(both, {(a, b): chance["layer3_5"][a] * chance["layer4_1"][b] for a, b in pairs})


def test_with_certain_survival_nothing_is_dropped() -> None:
    sampler = SubNetworkSampler(RESNET50, "independent", last_survival=1.0)
    assert sampler.draw((0,), 20) == (frozenset(),) * 20


@pytest.mark.parametrize("rule", ["inherited", "ordered", "uniform", "independent"])
def test_a_draw_is_a_function_of_its_key_and_more_groups_only_add(rule: Any) -> None:
    sampler = SubNetworkSampler(RESNET50, rule)
    state = torch.get_rng_state()
    six = sampler.draw((3, "sub-networks", 17), 6)
    torch.manual_seed(1234)
    other = torch.get_rng_state()
    for count in range(1, 7):
        assert sampler.draw((3, "sub-networks", 17), count) == six[:count]
    assert torch.equal(torch.get_rng_state(), other)
    assert any(sampler.draw((3, "sub-networks", step), 6) != six for step in range(18, 21))
    torch.set_rng_state(state)


# How branches are scaled.

KINDS = ["resnet14", "resnet50", "wrn_16_2", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"]
KINDS += ["efficientnet_v2_s"]


def block_of(name: str) -> nn.Sequential:
    """The first droppable block of a network, in a sequence of its own."""
    network = make(name)
    child = droppable_stages(network)[0][0]
    return nn.Sequential(OrderedDict([(child, network.get_submodule(child))]))


def channels_of(block: nn.Module) -> int:
    return next(part for part in block.modules() if isinstance(part, nn.Conv2d)).in_channels


@pytest.mark.parametrize("name", KINDS)
def test_a_scaled_branch_is_one_whose_last_layer_is_larger(name: str) -> None:
    network = block_of(name).eval()
    child, block = next(iter(network.named_children()))
    inputs = torch.rand(2, channels_of(block), 8, 8)
    plain = network(inputs)
    with scaled_branches(network, {child: 1.0}):
        assert torch.equal(network(inputs), plain)
    with scaled_branches(network, {child: 0.0}):
        assert torch.equal(network(inputs), inputs)
    with scaled_branches(network, {child: 2.0}):
        doubled = network(inputs)
    assert not torch.allclose(doubled, plain)
    assert torch.equal(network(inputs), plain)
    last = list(block.branch_end.modules())[-1]
    if name == "efficientnet_v2_s":
        # Its branch ends with an activation, so no layer's weights can double it.
        assert isinstance(last, nn.SiLU)
        torch.testing.assert_close(doubled - inputs, 2 * (plain - inputs))
        return
    with torch.no_grad():
        for parameter in last.parameters():
            parameter *= 2
    assert torch.equal(network(inputs), doubled)


@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("resnet")])
def test_dropping_and_scaling_give_the_whole_network_in_expectation(name: str) -> None:
    network = block_of(name).eval()
    child, block = next(iter(network.named_children()))
    inputs = torch.randn(2, channels_of(block), 8, 8)
    survives = 0.7
    with scaled_branches(network, {child: 1 / survives}):
        kept = run_without(network, inputs, ())
    dropped = run_without(network, inputs, {child})
    torch.testing.assert_close(survives * kept + (1 - survives) * dropped, network(inputs))


def test_gradients_of_a_scaled_branch_are_scaled() -> None:
    network = own(DoublingWithEnd)
    values = torch.randn(3, 4)
    network(values).sum().backward()
    plain = network[0].branch.weight.grad.clone()
    network.zero_grad()
    with scaled_branches(network, {"0": 4.0}):
        network(values).sum().backward()
    assert torch.equal(network[0].branch.weight.grad, 4 * plain)


def test_factors_end_with_an_error_inside() -> None:
    network = own(DoublingWithEnd, DoublingWithEnd)
    values = torch.randn(3, 4)
    plain = network(values)
    with pytest.raises(ValueError, match="inside"), scaled_branches(network, {"0": 2.0, "1": 3.0}):
        assert not torch.equal(network(values), plain)
        raise ValueError("inside")
    assert torch.equal(network(values), plain)


def test_a_block_that_does_not_tell_where_its_branch_ends_is_named() -> None:
    network = own(DoublingWithEnd, Doubling)
    expected = r"block '1' \(Doubling\) has no branch_end.*Define a property branch_end"
    with pytest.raises(RecipeError, match=expected), scaled_branches(network, {"0": 2.0, "1": 1.0}):
        pass
    assert not network[0].branch._forward_hooks


@pytest.mark.parametrize("name", KINDS)
def test_where_a_branch_ends_is_no_weight_and_is_copied_with_its_block(name: str) -> None:
    network = make(name)
    assert not any("branch_end" in key for key in network.state_dict())
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        for child in backbones.bypassable(network):
            block, original = twin.get_submodule(child), network.get_submodule(child)
            assert block.branch_end in set(block.modules())
            assert block.branch_end not in set(original.modules())

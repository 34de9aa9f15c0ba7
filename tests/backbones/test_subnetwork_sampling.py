"""Are sub-networks drawn as the papers say: which blocks go, how often, and the same ones for the same key?"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy import stats

from engine.backbones import SubNetworkSampler
from engine.errors import RecipeError
from tests.backbones.droppable_blocks import LARGE, RESNET50, layers, stages_of

DRAWS = 2000


def invented(*lengths: int) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{stage}_{index}" for index in range(length)) for stage, length in enumerate(lengths))


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

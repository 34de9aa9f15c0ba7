"""Are pipelines, fits and known images foretold rightly?"""

from __future__ import annotations

import dataclasses

import pytest

from engine import Plan, apply_overrides, load_recipe
from engine.data import Facts, open_source
from engine.errors import PlanError, RecipeError
from engine.methods import method_of
from engine.planning.estimate import compare_cuts, estimate_team, segment_counts, with_segments
from engine.planning.fitting import largest_batch, smallest_that_fits
from engine.planning.known_images import known_facts
from engine.planning.pipeline import grouped, step_seconds
from engine.planning.sizes import LearnerSize
from engine.recipes import Recipe
from engine.timing import TimedBlocks, measured_cut, subject_of


def recipe_of(name: str, *fields: str) -> Recipe:
    return apply_overrides(load_recipe(name), Plan(), fields)[0]


def facts_of(recipe: Recipe) -> Facts:
    return known_facts(recipe)[0]


def chain(*seconds: float) -> tuple[LearnerSize, ...]:
    return tuple(
        LearnerSize(f"segment{index}", ("block",), forward_seconds=each / 4, seconds=each)
        for index, each in enumerate(seconds)
    )


# The best halves of 1, 2, 2 and 6 are 5 and 6.
@pytest.mark.parametrize(("devices", "seconds"), [(9, 6.0), (4, 6.0), (2, 6.0), (1, 11.0)])
def test_a_full_chain_is_as_slow_as_its_busiest_device(devices: int, seconds: float) -> None:
    recipe = recipe_of("infopro_digits", "method.num_segments=4")
    team = method_of(recipe).team(recipe, facts_of(recipe))
    sizes = chain(1.0, 2.0, 2.0, 6.0)
    assert step_seconds(team, sizes, grouped(sizes, devices)) == pytest.approx(seconds)


def test_sequential_peers_wait_for_one_another_and_simultaneous_ones_do_not() -> None:
    found = {}
    for schedule in ("simultaneous", "sequential"):
        recipe = recipe_of("dml_cifar100_resnet32_resnet32", f"method.schedule={schedule}")
        team = method_of(recipe).team(recipe, facts_of(recipe))
        sizes = tuple(LearnerSize(f"peer{p}", ("block",), forward_seconds=1.0, seconds=3.0) for p in range(2))
        found[schedule] = step_seconds(team, sizes, (("peer0",), ("peer1",)))
    assert found["simultaneous"] == pytest.approx(3.0)
    # By hand: peer 0 needs forward, update and restate; peer 1 updates when it has heard the restated predictions.
    assert found["sequential"] > 4.5


def test_the_smallest_number_of_segments_and_the_largest_batch_fit_just_so() -> None:
    recipe = recipe_of("greedy_digits", "method.cuts=balanced_memory")
    facts, plan = facts_of(recipe), Plan()
    teams = [estimate_team(with_segments(recipe, count, facts), facts, plan) for count in (1, 2, 4)]
    needed = [team.needed for team in teams]
    assert needed == sorted(needed, reverse=True)
    chosen = smallest_that_fits(teams, needed[1])
    assert chosen is not None and chosen.num_segments == 2
    assert smallest_that_fits(teams, needed[2] - 1) is None
    batch = largest_batch(recipe, facts, plan, None, 2 * needed[1])

    def at(rows: int) -> int:
        changed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, batch_size=rows))
        return estimate_team(changed, facts, plan).needed

    assert at(batch) <= 2 * needed[1] < at(batch + batch // 50 + 2)
    assert largest_batch(recipe, facts, plan, None, 1000) == 0


def test_what_links_keep_is_bounded_and_nothing_where_the_steps_in_flight_have_no_room() -> None:
    recipe = recipe_of("infopro_digits")
    team = estimate_team(recipe, facts_of(recipe), Plan())
    assert team.kept_bytes == 256 * 2**20
    # A quarter is in flight at most.
    step = team.in_flight_bytes // team.window
    enough = 2**28 + 16 * team.window
    for quarter, more, kept in ((2**26, 0, 2**28), (2**26, 4, enough), (2**29, 0, 2**31), (2**29, 1, 0)):
        batch = quarter // team.window - step + team.batch + more
        assert dataclasses.replace(team, batch=batch).kept_bytes == kept


def test_the_three_balances_conflict() -> None:
    recipe = recipe_of("infopro_cifar10_resnet32", "data.batch_size=128")
    cuts = {cut.rule: cut for cut in compare_cuts(recipe, facts_of(recipe), 4)}
    assert cuts["balanced_memory"].memory == min(cut.memory for cut in cuts.values())
    assert cuts["balanced_time"].speed_up == max(cut.speed_up for cut in cuts.values())
    assert cuts["balanced_memory"].memory < 0.9 * cuts["balanced_layers"].memory
    assert cuts["balanced_time"].speed_up > 1.1 * cuts["balanced_layers"].speed_up


def test_timed_blocks_choose_a_cut_that_exists() -> None:
    recipe = recipe_of("infopro_digits", "numerics.device=cpu")
    facts = facts_of(recipe)
    subject = subject_of(recipe, facts)
    timed = TimedBlocks(subject, [2, 3], recipe.data.batch_size, budget=0.1)
    for count in (2, 3):
        measured = compare_cuts(recipe, facts, count, measured_cut(subject, timed, count, budget=0.1))[-1]
        assert measured.rule == "measured"
        fields = (f"method.num_segments={count}", f"method.cuts={','.join(measured.blocks)}")
        assert len(estimate_team(recipe_of("infopro_digits", *fields), facts, Plan()).sizes) == count


def test_known_facts_are_those_of_the_opened_set() -> None:
    recipe = recipe_of("infopro_digits", "data.train_limit=100", "data.validation_fraction=0.1")
    source = open_source(recipe.data, recipe.seed)
    assert known_facts(recipe) == (source.facts, "")
    source.close()


def test_published_sets_are_known_without_their_files() -> None:
    facts, assumed = known_facts(recipe_of("infopro_stl10_resnet110"))
    assert (facts.image_shape, facts.num_classes, facts.sizes) == ((3, 96, 96), 10, {"train": 5000, "test": 8000})
    assert assumed == ""
    facts, assumed = known_facts(recipe_of("infopro_imagenet_resnet152", "data.root=/nowhere"))
    assert (facts.image_shape, facts.num_classes) == ((3, 224, 224), 1000)
    assert "data.num_classes" in assumed
    with pytest.raises(RecipeError, match="data.image_size"):
        known_facts(recipe_of("infopro_imagenet_resnet152", "data.image_size=null", "data.resize_size=null"))


def test_impossible_numbers_of_segments_are_refused() -> None:
    digits, cohort = recipe_of("infopro_digits"), recipe_of("dml_cifar100_resnet32_resnet32")
    with pytest.raises(PlanError, match=r"--k 99.*give 1 to 7"):
        segment_counts(digits, facts_of(digits), [2, 99])
    with pytest.raises(PlanError, match="method.kind=dml does not cut"):
        segment_counts(cohort, facts_of(cohort), [2])
    assert segment_counts(cohort, facts_of(cohort), None) == [None]

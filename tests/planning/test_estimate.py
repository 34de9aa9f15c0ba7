"""Are pipelines, fits and known images foretold rightly?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from engine import Plan, apply_overrides, load_recipe
from engine.data import Facts, open_source
from engine.errors import PlanError, RecipeError
from engine.methods import method_of
from engine.planning.choosing import fastest_that_fits
from engine.planning.estimate import compare_cuts, estimate_team, planned_network, segment_counts, with_segments
from engine.planning.fitting import largest_batch, smallest_that_fits
from engine.planning.known_images import known_facts
from engine.planning.pipeline import grouped, step_seconds
from engine.planning.sizes import LearnerSize
from engine.recipes import Recipe
from engine.runtimes.replicated import check_replicable
from engine.timing import TimedBlocks, measured_cut, subject_of
from engine.training.preview import check_batches
from tests.recipes.shipped import RECIPES
from tests.tasks.small_market import market


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


def test_the_largest_batch_is_one_that_is_trained_on() -> None:
    plan = Plan()
    # Of 49 images, one would be left over.
    recipe = recipe_of("greedy_digits", "data.train_limit=49", "data.batch_size=10")
    facts = facts_of(recipe)
    memory = estimate_team(recipe_of("greedy_digits", "data.batch_size=48"), facts, plan).needed
    assert largest_batch(recipe, facts, plan, None, memory) == 47
    # Of each batch, each replica needs two images, of the last one of an epoch as well.
    assert largest_batch(recipe, facts, Plan(replicas=2), None, memory) == 49
    recipe = recipe_of("greedy_digits", "data.train_limit=51", "data.batch_size=10")
    memory = estimate_team(recipe_of("greedy_digits", "data.batch_size=12"), facts, plan).needed
    assert largest_batch(recipe, facts_of(recipe), Plan(replicas=4), None, memory) == 43


def test_every_shipped_recipe_has_a_largest_batch_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def estimated(recipe: Recipe, facts: Facts, plan: Plan, devices: int | None) -> SimpleNamespace:
        planned_network(recipe, facts)
        return SimpleNamespace(needed=recipe.data.batch_size)

    # What networks and learners need is no matter here, and takes minutes for all of them.
    monkeypatch.setattr("engine.backbones.build", lambda *_: nn.Sequential())
    monkeypatch.setattr("engine.planning.fitting.estimate_team", estimated)
    for recipe in {repr((each.backbone, each.data)): each for each in RECIPES.values()}.values():
        facts = facts_of(recipe)
        batch = largest_batch(recipe, facts, Plan(), None, 1000)
        assert 2 <= batch <= 1000, recipe.name
        changed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, batch_size=batch))
        check_batches(changed, facts)
        planned_network(changed, facts)


@pytest.mark.parametrize("replicas", [1, 8])
def test_batches_that_draw_their_classes_are_sized_and_hold_as_many_of_each(replicas: int) -> None:
    classes = ("data.synthetic_images=33", "task.triplet_weight=0")
    recipe = recipe_of("end_to_end_market1501_resnet50_tiny", *classes)
    facts, plan = facts_of(recipe), Plan(replicas=replicas)
    check_replicable(recipe, facts, plan)
    assert recipe.data.classes_per_batch == 4
    assert largest_batch(recipe, facts, plan, None, 1 << 60) == 32
    assert estimate_team(recipe, facts, plan).needed > 0
    (choice,) = fastest_that_fits(recipe, facts, plan, [None], 1 << 60, [None])
    assert choice is not None and choice.fields == ()


def test_a_part_of_a_batch_is_sized_whatever_would_be_left_over_of_an_epoch() -> None:
    small = ("data.image_size=48,64", "data.augmentation.crop=48,64", "data.batch_size=12")
    recipe = recipe_of("infopro_camvid_resnet18", *small)
    facts = facts_of(recipe)
    # Of parts of 6 images, one would be left over of 367.
    assert facts.sizes["train"] % 12 == 7
    assert len(estimate_team(recipe, facts, Plan(replicas=2)).sizes) == 4


def test_a_network_that_needs_two_images_takes_batches_that_draw_their_classes() -> None:
    words = ("backbone.neck=batch_norm", "data.train_limit=41", "data.batch_size=8")
    drawing = recipe_of("end_to_end_digits", *words, "data.classes_per_batch=2")
    assert method_of(drawing).team(drawing, facts_of(drawing)).learners
    recipe = recipe_of("end_to_end_digits", *words)
    with pytest.raises(RecipeError, match="of 41 training images in batches of 8 the last holds one"):
        estimate_team(recipe, facts_of(recipe), Plan())


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


def test_a_cut_behind_which_no_local_loss_stands_says_why() -> None:
    # The third segment would end behind the 16 channels of the last stage.
    recipe = recipe_of("predsim_digits", "method.prediction_features=8", "backbone.name=resnet20")
    cuts = {cut.rule: cut for cut in compare_cuts(recipe, facts_of(recipe), 4)}
    assert "the segment gives 16 channels" in cuts["balanced_layers"].obstacle
    for rule in ("balanced_memory", "balanced_time"):
        assert cuts[rule].obstacle == "" and math.isfinite(cuts[rule].memory)


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


def test_identities_of_another_set_are_counted_where_its_folder_is(tmp_path: Path) -> None:
    words = ("data.image_size=[16,8]", "data.num_classes=4")
    recipe = recipe_of("dml_market1501_mobilenet", *words, f"data.root={market(tmp_path / 'duke')}")
    facts, assumed = known_facts(recipe)
    assert (facts.num_classes, facts.sizes["train"], assumed) == (4, 24, "")
    with pytest.raises(RecipeError, match="data.num_classes=4, but market1501 has 751 classes"):
        known_facts(recipe_of("dml_market1501_mobilenet", *words, f"data.root={tmp_path / 'nowhere'}"))


def test_impossible_numbers_of_segments_are_refused() -> None:
    digits, cohort = recipe_of("infopro_digits"), recipe_of("dml_cifar100_resnet32_resnet32")
    with pytest.raises(PlanError, match=r"--k 99.*give 1 to 7"):
        segment_counts(digits, facts_of(digits), [2, 99])
    with pytest.raises(PlanError, match="method.kind=dml does not cut"):
        segment_counts(cohort, facts_of(cohort), [2])
    assert segment_counts(cohort, facts_of(cohort), None) == [None]

"""A benchmark of a recipe: its speed and memory beside those of other ways of training the same network.

First the best settings of each baseline are searched by running them; then all cases take turns, in every round once.
Medians over rounds are compared, ratios are formed round by round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from engine.benchmarking.baseline_cases import BASELINES, BaselineCases, check_baselines
from engine.benchmarking.batches import read_images
from engine.benchmarking.case_results import find
from engine.benchmarking.cases import EngineCases, Machine
from engine.benchmarking.measuring import Measuring
from engine.benchmarking.result import Measurement
from engine.benchmarking.simulation import simulate
from engine.benchmarking.starting import Starter
from engine.benchmarking.tuned_cases import TunedCases
from engine.errors import PlanError, RecipeError
from engine.recipes import Plan, Recipe, with_absolute_paths, with_modelled_cuts
from engine.recipes.arguments import check_plan, check_recipe

_MOST_STEPS = 200

Say = Callable[[str], None]


def measure(
    recipe: Recipe,
    plan: Plan | None = None,
    ks: Sequence[int] | None = None,
    against: Sequence[str] = tuple(BASELINES),
    steps: int = 10,
    rounds: int = 3,
    say: Say = lambda text: None,
) -> Measurement:
    """Measure a recipe beside other ways of training its network, in one run.

    Args:
        recipe: what is trained; its method is cut into each of ``ks`` segments.
        plan: where its learners live on Ray; ``executor=process`` leaves Ray out.
        ks: numbers of segments; 1 and the recipe's own unless given.
        against: which baselines, of `BASELINES`.
        steps: that are timed of each case in each round.
        rounds: how often each case is timed.
        say: told what is being done.

    Raises:
        RecipeError, PlanError, DataError: the input cannot be used.
        EngineError: end-to-end training, with which all is compared, failed.
    """
    check_recipe(recipe)
    plan = Plan() if plan is None else plan
    check_plan(plan)
    check_baselines(against)
    for name, value, most in (("--steps", steps, _MOST_STEPS), ("--rounds", rounds, 1000)):
        if not 1 <= value <= most:
            raise RecipeError(f"{name} {value}: expected 1 to {most}")
    images = read_images(with_absolute_paths(recipe))
    machine = Machine.for_recipe(images.recipe)
    threads = images.recipe.numerics.threads
    if threads > machine.cores and not machine.gpus:
        raise PlanError(f"numerics.threads={threads}, but there are {machine.cores} cores: give at most as many")
    own = EngineCases(images, plan, ks, machine, say)
    # Baselines are not cut as the recipe is.
    uncut = dataclasses.replace(images, recipe=with_modelled_cuts(images.recipe))
    others = BaselineCases(uncut, against, own.worker_counts, machine)
    left_out = own.left_out | others.left_out
    with Starter(images, plan) as starter:
        tuned = TunedCases(starter, others, say)
        # Before anything else runs, so that nothing is beside what is searched.
        tuned.time_blocks("cuda:0" if machine.gpus else "cpu")
        groups = [*own.groups, *filter(None, map(tuned.tuned, others.groups))]
        with Measuring(starter, groups, left_out | tuned.left_out, say) as measuring:
            measuring.prepare()
            measuring.time(steps, rounds)
            if not machine.gpus:
                measuring.measure_resident_memory()
    rows = [row for group in groups for case in group.cases if (row := measuring.rows.get(case.name))]
    reference = find(rows, family="end_to_end", threads=threads)
    assert reference is not None
    in_process = [row for row in rows if row.case.family in ("process", "end_to_end")]
    return Measurement(
        own.recipe,
        images.described,
        images.batches.batch_size,
        machine,
        steps,
        rows,
        reference,
        simulate(reference, in_process, tuned.blocks),
        measuring.left_out,
        tuned.searches,
        others.blocks,
        tuned.blocks,
        tuned.blocks_others,
    )

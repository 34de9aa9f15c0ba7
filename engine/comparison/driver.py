"""Trains recipes under one budget with the same seeds, and writes one table and one picture of them."""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from engine.comparison.budget import budget_warnings
from engine.comparison.cost import training_flops_per_image
from engine.comparison.folder import (
    ComparisonFolder,
    choose_comparison_folder,
    comparison_content,
    with_compared_cuts,
)
from engine.comparison.picture import plot_compared
from engine.comparison.progress import Progress, of_recipe
from engine.comparison.result import Comparison, compared_recipe
from engine.comparison.runs import Job, free_slots, run_jobs
from engine.comparison.tables import compared_csv, compared_markdown
from engine.data import Facts
from engine.errors import DataError, InputError, PlanError, RecipeError, RunError
from engine.methods import method_of
from engine.paths import absolute, check_writable
from engine.recipes import Plan, Recipe, with_absolute_paths
from engine.runtimes.replicated import check_replicable
from engine.tasks import Metric, headline_of
from engine.timing import chosen_recipe
from engine.tracking import Console, open_console, spared
from engine.training.folder import Resume, check_resume, free_folder
from engine.training.held_out import with_validation
from engine.training.holding import refuse_held
from engine.training.preview import preview


def compare(
    recipes: Mapping[str, Recipe],
    plan: Plan | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    run_dir: str | Path | None = None,
    resume: Resume = "auto",
    max_concurrent: int | None = None,
    console: Console | None = None,
) -> Comparison:
    """Train each recipe with each seed, or go on with a comparison that was interrupted.

    Runs of one seed see the same images in the same order. Each run has a process and a run folder of its own;
    finished runs are not repeated, and one that fails stops no other. A recipe without validation images holds out a
    tenth of its training images, and these alone say which recipe is best. At the end the folder holds comparison.md,
    comparison.csv and comparison.png. Seeds may be added to a comparison that is there.

    Args:
        recipes: by label, the baseline first; their own seeds are not used. One recipe alone is compared with nothing:
            there are its scores only.
        plan: where and how each run is trained; in processes of this machine unless given. On Ray the runs come one
            after another.
        seeds: with which each is trained.
        run_dir: the folder; `runs/compare-DIGEST` unless given.
        resume: ``auto`` goes on with the comparison in the folder; ``never`` starts a new one beside it.
        max_concurrent: runs to train at once; as many as there are GPUs, or cores for their threads, unless given.
        console: where progress is told, a line for each run; nowhere unless given.

    Raises:
        RecipeError, PlanError, DataError, RunError: the input cannot be used.
    """
    plan = plan or Plan(executor="process")
    console = console or open_console(sys.stderr, quiet=True)
    seeds = _whole(seeds)
    check_resume(resume)
    _check(recipes, seeds, plan, max_concurrent)
    headline = _headline(recipes)
    wanted = absolute(run_dir, "--run-dir", RunError) if run_dir is not None else None
    _check_place(wanted, resume)
    given, facts = _prepare(recipes, seeds[0], plan, console)
    warnings = budget_warnings(given)
    for warning in warnings:
        console.message(warning)
    path = choose_comparison_folder(comparison_content(given, seeds), wanted, resume)
    refuse_held(path, "comparing")
    prepared = _with_cuts(with_compared_cuts(given, path), facts, plan, console)
    teams = {label: method_of(recipe).team(recipe, facts[label]) for label, recipe in prepared.items()}
    content = comparison_content(given, seeds, prepared)
    # More at once than there are would have nothing to do.
    most = max_concurrent and min(max_concurrent, len(prepared) * len(seeds))
    slots = free_slots(list(prepared.values()), plan, most)
    folder = ComparisonFolder(path, content)
    try:
        costs = _costs(prepared, seeds[0], folder, console)
        # A seed of all recipes before the next one: what an interruption leaves can be compared in pairs.
        jobs = [
            Job(label, dataclasses.replace(recipe, seed=seed), folder.run_dir(label, seed))
            for seed in seeds
            for label, recipe in prepared.items()
        ]
        progress = Progress(jobs, facts, headline, console)
        complete = run_jobs(progress.unfinished, plan, slots, progress.started, progress.ended)
        rows = tuple(
            compared_recipe(
                label,
                prepared[label],
                team,
                progress.results(label),
                progress.failures(label),
                costs[label],
                headline,
            )
            for label, team in teams.items()
        )
        failed = any(row.failures for row in rows)
        ended: Literal["finished", "failed"] = "failed" if failed else "finished"
        comparison = Comparison(
            run_dir=path,
            status=ended if complete else "interrupted",
            seeds=tuple(seeds),
            headline=headline,
            rows=rows,
            warnings=warnings,
            runs_at_once=min(len(slots), len(jobs)),
        )
        if complete:
            _write(comparison, next(iter(prepared.values())), folder, console)
        return comparison
    finally:
        folder.close()


def _whole(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return seeds as Python's whole numbers; numpy's are taken, too."""
    try:
        return tuple(operator.index(seed) for seed in seeds)
    except TypeError:
        raise RecipeError(f"seeds: found {seeds!r}, expected the seeds themselves, such as (0, 1, 2)") from None


def _check(recipes: Mapping[str, Recipe], seeds: Sequence[int], plan: Plan, max_concurrent: int | None) -> None:
    if not isinstance(recipes, Mapping):
        raise RecipeError(
            f"recipes: found a {type(recipes).__name__}, expected recipes by their labels: {{label: recipe}}"
        )
    for label, recipe in recipes.items():
        if not isinstance(recipe, Recipe):
            raise RecipeError(
                f"{label}: found a {type(recipe).__name__}, expected a Recipe; engine.load_recipe(NAME) gives one"
            )
    if not recipes:
        raise RecipeError("recipes: found none, expected 1 or more, the baseline first")
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
        found = ", ".join(map(str, seeds)) or "none"
        raise RecipeError(f"seeds: found {found}, expected different numbers from 0 to {2**31 - 1:,}")
    if max_concurrent is not None and max_concurrent < 1:
        raise PlanError(f"max_concurrent={max_concurrent}: expected at least 1, or leave it out")
    if plan.mirror is not None:
        raise PlanError(f"plan.mirror={plan.mirror}: a mirror holds one run, but these are several; leave it out")
    if plan.executor == "ray" and max_concurrent not in (None, 1):
        raise PlanError(
            f"max_concurrent={max_concurrent}, but on Ray, where a run has all devices, runs come one after another; "
            "leave it out, or set plan.executor=process"
        )


def _check_place(wanted: Path | None, resume: Resume) -> None:
    """Refuse a folder that could not be written once all images are opened and cuts measured."""
    place = absolute("runs", "--run-dir", RunError) if wanted is None else wanted
    check_writable(place, "--run-dir", RunError)
    if wanted is not None and resume == "never":
        check_writable(free_folder(wanted), "--run-dir", RunError)


def _headline(recipes: Mapping[str, Recipe]) -> Metric:
    """Return the score by which all recipes are judged; refuses recipes of tasks with different ones."""
    (baseline, first), *others = recipes.items()
    headline = headline_of(first)
    for label, recipe in others:
        if headline_of(recipe) != headline:
            raise RecipeError(
                f"{label}: task.kind={recipe.task.kind!r} is judged by {headline_of(recipe).name}, but {baseline} by "
                f"{headline.name}: expected recipes of one task"
            )
    return headline


def _prepare(
    recipes: Mapping[str, Recipe], seed: int, plan: Plan, console: Console
) -> tuple[dict[str, Recipe], dict[str, Facts]]:
    """Return recipes that hold out validation images, and facts of the images; refuses what training would refuse."""
    prepared, facts = {}, {}
    for label, recipe in recipes.items():
        try:
            chosen = with_validation(with_absolute_paths(dataclasses.replace(recipe, seed=seed)), console)
            # A folder that does not exist: only the recipe and its images are looked at.
            facts[label] = preview(chosen, resume="never").facts
            check_replicable(chosen, facts[label], plan)
        except (RecipeError, DataError, PlanError) as error:
            raise of_recipe(label, error) from error
        prepared[label] = chosen
    return prepared, facts


def _with_cuts(
    recipes: Mapping[str, Recipe], facts: Mapping[str, Facts], plan: Plan, console: Console
) -> dict[str, Recipe]:
    """Return recipes whose cuts are measured, one after another and before any run: one cut for all seeds."""
    found = {}
    for label, recipe in recipes.items():

        def tell(line: str, label: str = label) -> None:
            console.message(f"{label}: {line}")

        try:
            found[label] = chosen_recipe(recipe, facts[label], plan, tell)
        except (RecipeError, PlanError) as error:
            raise of_recipe(label, error) from error
    return found


def _costs(
    recipes: Mapping[str, Recipe], seed: int, folder: ComparisonFolder, console: Console
) -> dict[str, float | None]:
    costs = folder.read_costs(console.message)
    for label, recipe in recipes.items():
        if label not in costs:
            console.message(f"counting the operations of a training step of {label}")
            try:
                costs[label] = training_flops_per_image(recipe)
            except InputError as error:
                raise of_recipe(label, error) from error
            folder.write_costs(costs)
    return costs


def _write(comparison: Comparison, baseline: Recipe, folder: ComparisonFolder, console: Console) -> None:
    rows, seeds, headline = comparison.rows, comparison.seeds, comparison.headline
    count = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    epochs = "1 epoch" if baseline.epochs == 1 else f"{baseline.epochs:,} epochs"
    number = "1 recipe" if len(rows) == 1 else f"{len(rows)} recipes"
    title = f"{number} on {baseline.data.name}, {baseline.backbone.name}, {epochs}, {count}"
    if comparison.warnings:
        title += " (not one budget)"
    page = compared_markdown(title, rows, seeds, headline, comparison.warnings, comparison.notes)
    folder.write("comparison.md", page)
    folder.write("comparison.csv", compared_csv(rows, seeds, headline))
    with spared("comparison.png", console.message):
        plot_compared(rows, seeds, headline, folder.path / "comparison.png", title)

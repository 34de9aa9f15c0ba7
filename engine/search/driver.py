"""Searches the fields of a recipe with Ray Tune: every trial is an ordinary run with a folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import PlanError, RecipeError, RunError
from engine.paths import absolute, check_writable
from engine.recipes import Plan, Recipe
from engine.recipes.arguments import check_argument, check_place, check_plan
from engine.runtimes.ray.cluster import connect, disconnect
from engine.search.console import SweepConsole
from engine.search.copying import steps_between_copies
from engine.search.definition import Sweep
from engine.search.folder import SweepFolder, folder_of
from engine.search.measured_cuts import keep_base_cuts, with_base_cuts
from engine.search.needs import Needs
from engine.search.reporting import write_report
from engine.search.settings import combinations, recipe_with
from engine.search.space import check_space
from engine.search.stopping import Stop
from engine.search.trial import Trial
from engine.search.tuning import run_trials
from engine.search.watching import Watcher
from engine.search.winners import best_trial, pareto_front
from engine.tracking import spared
from engine.training import evaluate, load
from engine.training.environment import files_changed_since
from engine.training.folder import Resume, check_resume
from engine.training.held_out import with_validation
from engine.training.holding import refuse_held

Ending = Literal["finished", "failed", "interrupted", "lost"]

_ENDED = ("finished", "pruned", "failed")


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a search.

    Attributes:
        run_dir: the folder, with ``trials/``, ``trials.parquet``, ``sweep.md`` and ``sweep.png``.
        status: ``failed`` where no trial finished; ``interrupted`` where the same command goes on; ``lost`` where a
            trial lost its process or node again and again, or found no disk, folder or time to start, after which the
            same command goes on, too.
        sweep: what was searched.
        trials: all of them.
        best: of a finished search, the trial with the best metric among the finished ones; with test scores.
        front: of a finished search, numbers of the finished trials that no other one beats in the metric and in all
            that it is held against.
        at_once: how many trials shared the cluster, at most.
        warnings: which of the user's own files have changed since trials were trained with them.
    """

    run_dir: Path
    status: Ending
    sweep: Sweep
    trials: tuple[Trial, ...]
    best: Trial | None
    front: tuple[int, ...]
    at_once: int
    warnings: tuple[str, ...] = ()


def sweep(
    definition: Sweep,
    num_samples: int | None = None,
    max_concurrent: int | None = None,
    plan: Plan | None = None,
    run_dir: str | Path | None = None,
    resume: Resume = "auto",
    console: SweepConsole | None = None,
) -> SweepResult:
    """Search, or go on with a search that was interrupted or killed.

    Trials that have ended are kept, and running ones go on from their newest checkpoints. Each trial holds one
    placement group with all that it needs. Trials score validation images only; the test images are looked at once, at
    the end, for the best trial and the Pareto front.

    Args:
        definition: what is searched.
        num_samples: trials in all; the definition's number unless given. A grid has one for each combination.
        max_concurrent: trials at once; as many as the cluster has room for unless given.
        plan: where and how each trial runs; in one process each unless given.
        run_dir: the folder; ``runs/sweep-NAME-DIGEST`` unless given.
        resume: ``auto`` goes on with the search in the folder; ``never`` starts a new one beside it.
        console: where progress is told; nowhere unless given.

    Raises:
        RecipeError, PlanError, DataError, RunError: the input cannot be used, or a trial would never fit; nothing was
            started.
    """
    named = definition if isinstance(definition, str) else "k_digits"
    check_argument("definition", definition, Sweep, RecipeError, f"engine.load_sweep({named!r}) gives one")
    plan = Plan(executor="process") if plan is None else plan
    check_plan(plan)
    check_resume(resume)
    if run_dir is not None:
        check_place("run_dir", run_dir, RunError)
    plan = dataclasses.replace(plan, evaluate_test=False)
    check_space(definition, definition.base())
    if definition.searcher == "grid":
        trials = len(combinations(definition))
        if num_samples not in (None, trials):
            raise PlanError(
                f"--num-samples {num_samples}: a grid tries each of its combinations, which are {trials}; leave it "
                "out, or search with searcher='random'"
            )
        num_samples = trials
    if num_samples is not None:
        definition = dataclasses.replace(definition, num_samples=num_samples)
    console = console or SweepConsole(io.StringIO())
    if run_dir is not None:
        run_dir = absolute(run_dir, "--run-dir", RunError)
        if resume == "auto":
            refuse_held(run_dir, "searching")
    check_writable(absolute(run_dir or "runs", "--run-dir", RunError), "--run-dir", RunError)
    if max_concurrent is not None and max_concurrent < 1:
        raise PlanError(f"max_concurrent={max_concurrent}: expected at least 1, or leave it out")
    with Stop() as stop:
        return _searched(definition, max_concurrent, plan, run_dir, resume, console, stop)


def _searched(
    definition: Sweep,
    max_concurrent: int | None,
    plan: Plan,
    run_dir: str | Path | None,
    resume: Resume,
    console: SweepConsole,
    stop: Stop,
) -> SweepResult:
    base = with_validation(recipe_with(definition.base(), definition, {}), console)
    path = folder_of(definition, base, Path(run_dir) if run_dir is not None else None, resume)
    refuse_held(path, "searching")
    started_ray, folder = False, None
    try:
        # A cluster is looked at before anything is started; a private Ray is not needed for that.
        if plan.address is not None:
            with stop.held():
                started_ray = connect(plan, 0)
            stop.raise_if_requested()
        # The folder is that of the search as it was given.
        cut_definition, cut_base = with_base_cuts(definition, base, path, plan, console.message)
        needs = Needs(cut_definition, cut_base, plan)
        steps = steps_between_copies(cut_definition, cut_base, plan) if definition.scheduler == "pbt" else None
        folder = SweepFolder(definition, base, path, "auto")
        keep_base_cuts(base, cut_base, folder.path)
        at_once = needs.at_once(max_concurrent)
        with stop.held():
            started_ray = connect(plan, at_once * needs.store_bytes, needs.transport) or started_ray
        stop.raise_if_requested()
        console.message(f"{definition.name}: {needs.describe()}; {at_once} at once; {folder.path}")
        watcher = Watcher(cut_definition, cut_base, plan, needs, folder, console, stop, started_ray)
        queue = watcher.watched(steps)
        with stop.held(), stop.expected():
            run_trials(definition, needs, watcher, queue, folder, max_concurrent)
        return _concluded(definition, base, folder, at_once, console, stop)
    finally:
        with stop.held():
            if started_ray:
                disconnect()
            # Not sooner: until now trials may have written into it.
            if folder is not None:
                folder.close()


def _have_ended(definition: Sweep, trials: Sequence[Trial]) -> bool:
    states = [trial.status for trial in trials]
    return len(states) >= definition.num_samples and all(each in _ENDED for each in states)


def _concluded(
    definition: Sweep, base: Recipe, folder: SweepFolder, at_once: int, console: SweepConsole, stop: Stop
) -> SweepResult:
    trials = [folder.trials[number] for number in sorted(folder.trials)]
    best: Trial | None = None
    front: tuple[int, ...] = ()
    status: Ending = "interrupted"
    if stop.requested:
        status = "interrupted"
    elif any(trial.status == "lost" for trial in trials):
        status = "lost"
    elif _have_ended(definition, trials):
        # Before all have ended nobody has won: the test images must not be looked at for a trial that has not.
        best, front = best_trial(definition, trials), pareto_front(definition, trials)
        status = "finished" if best is not None else "failed"
        for trial in trials:
            wanted = trial.number in front or (best is not None and trial.number == best.number)
            if wanted and not any(name.startswith("test/") for name in trial.metrics):
                console.message(f"scoring the test images with {trial.name}")
                trial.metrics |= _test_scores(evaluate(load(folder.run_dir(trial))))
                folder.note(trial)
    warnings = _changes(definition, base, folder, trials)
    result = SweepResult(folder.path, status, definition, tuple(trials), best, front, at_once, warnings)
    with spared("trials.parquet", console.message):
        folder.write_table(trials)
    # A picture takes seconds, which somebody who has said stop does not wait; the next start draws it.
    with spared("sweep.md or sweep.png", console.message):
        write_report(definition, result.trials, best, front, result.run_dir, warnings=warnings, draw=not stop.requested)
    return result


def _changes(definition: Sweep, base: Recipe, folder: SweepFolder, trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return in words which of the user's own files have changed since trials were trained, which are not repeated."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        if trial.status not in _ENDED:
            continue
        # Settings that make no recipe together were never trained.
        with contextlib.suppress(RecipeError):
            recipe = recipe_with(base, definition, trial.settings)
            for change in files_changed_since(folder.run_dir(trial), recipe):
                found.setdefault(change, []).append(trial.name)
    return tuple(
        f"{change} since these trials were trained, which are not repeated ({', '.join(names)}); --resume never "
        "searches anew"
        for change, names in found.items()
    )


def _test_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the test scores, of several networks their mean."""
    found: dict[str, list[float]] = {}
    for name, value in scores.items():
        owner, split, score = f"/{name}".rsplit("/", 2)
        if split == "test" and owner.strip("/") != "ensemble":
            found.setdefault(f"test/{score}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}

"""Searches the fields of a recipe with Ray Tune: every trial is an ordinary run with a folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from engine.errors import PlanError
from engine.recipes import Plan
from engine.runtimes.ray.cluster import connect, disconnect
from engine.search.console import SweepConsole
from engine.search.copying import steps_between_copies
from engine.search.definition import Sweep
from engine.search.generations import PopulationQueue
from engine.search.needs import Needs
from engine.search.reporting import write_report
from engine.search.running import EPOCH, run_trial
from engine.search.searching import TrialQueue
from engine.search.settings import combinations, recipe_with
from engine.search.trials import SweepFolder, Trial
from engine.search.watching import Watcher
from engine.search.winners import best_trial, pareto_front
from engine.training import evaluate, load
from engine.training.comparison_budget import with_validation
from engine.training.folder import Resume

_TUNE_SILENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
}


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a search.

    Attributes:
        run_dir: the folder, with ``trials/``, ``trials.parquet``, ``sweep.md`` and ``sweep.png``.
        status: ``failed`` where no trial finished; ``interrupted`` where the same command goes on.
        sweep: what was searched.
        trials: all of them.
        best: the trial with the best metric among the finished ones; with test scores.
        front: numbers of the finished trials that no other one beats in the metric and in all that it is held against.
        at_once: how many trials shared the cluster, at most.
    """

    run_dir: Path
    status: Literal["finished", "failed", "interrupted"]
    sweep: Sweep
    trials: tuple[Trial, ...]
    best: Trial | None
    front: tuple[int, ...]
    at_once: int


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
        num_samples: trials in all; the definition's number unless given.
        max_concurrent: trials at once; as many as the cluster has room for unless given.
        plan: where and how each trial runs; in one process each unless given.
        run_dir: the folder; ``runs/sweep-NAME-DIGEST`` unless given.
        resume: ``auto`` goes on with the search in the folder; ``never`` starts a new one beside it.
        console: where progress is told; nowhere unless given.

    Raises:
        RecipeError, PlanError, DataError, RunError: the input cannot be used, or a trial would never fit; nothing was
            started.
    """
    plan = dataclasses.replace(plan or Plan(executor="process"), evaluate_test=False)
    if definition.searcher == "grid":
        num_samples = len(combinations(definition))
    if num_samples is not None:
        definition = dataclasses.replace(definition, num_samples=num_samples)
    console = console or SweepConsole(io.StringIO())
    if max_concurrent is not None and max_concurrent < 1:
        raise PlanError(f"max_concurrent={max_concurrent}: expected at least 1, or leave it out")
    base = with_validation(recipe_with(definition.base(), definition, {}), console)
    # A cluster is looked at before anything is started; a private Ray is not needed for that.
    started_ray = connect(plan, 0) if plan.address is not None else False
    try:
        needs = Needs(definition, base, plan)
        steps = steps_between_copies(definition, base, plan) if definition.scheduler == "pbt" else None
        folder = SweepFolder(definition, base, Path(run_dir) if run_dir is not None else None, resume)
        try:
            at_once = needs.at_once(max_concurrent)
            started_ray = connect(plan, at_once * needs.store_bytes) or started_ray
            console.message(f"{definition.name}: {needs.describe()}; {at_once} at once; {folder.path}")
            watcher = Watcher(definition, base, plan, folder, console)
            queue = watcher.watched(steps)
            complete = _run(definition, needs, watcher, queue, folder, max_concurrent)
            return _concluded(definition, folder, complete, at_once, console)
        finally:
            folder.close()
    finally:
        if started_ray:
            disconnect()


def _run(
    definition: Sweep,
    needs: Needs,
    watcher: Watcher,
    queue: TrialQueue | PopulationQueue,
    folder: SweepFolder,
    max_concurrent: int | None,
) -> bool:
    """Run all trials; returns whether they have all ended."""
    if queue.is_empty:
        return _have_ended(definition, folder)
    scheduler: Any = FIFOScheduler()
    if definition.scheduler == "asha":
        scheduler = ASHAScheduler(
            time_attr=EPOCH,
            metric=definition.metric,
            mode=definition.mode,
            # A trial that was trained to its end is not stopped.
            max_t=needs.epochs + 1,
            grace_period=definition.grace_epochs,
            reduction_factor=definition.reduction_factor,
        )
    # What Ray Tune keeps of its own is not needed again: a search goes on from its list of trials.
    with tempfile.TemporaryDirectory(prefix="local_learning_tune_") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(run_trial, lambda config: needs.factory(config["settings"])),
            tune_config=tune.TuneConfig(
                # With ASHA the metric is given to the scheduler, which does not take it twice.
                metric=None if definition.scheduler == "asha" else definition.metric,
                mode=None if definition.scheduler == "asha" else definition.mode,
                search_alg=queue,
                scheduler=scheduler,
                # A population decides itself when it has come to its end.
                num_samples=-1 if definition.scheduler == "pbt" else definition.num_samples,
                max_concurrent_trials=max_concurrent,
                # Members take turns, and what their processes have imported need not be imported again.
                reuse_actors=definition.scheduler == "pbt",
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=scratch, verbose=0, callbacks=[watcher], log_to_file=False
            ),
        )
        with _quiet(folder.path / "tune.txt"):
            tuner.fit()
    return _have_ended(definition, folder)


def _have_ended(definition: Sweep, folder: SweepFolder) -> bool:
    states = [trial.status for trial in folder.trials.values()]
    return len(states) >= definition.num_samples and all(each not in ("waiting", "running") for each in states)


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Let what Ray Tune prints and logs go to a file: the console tells what there is to tell."""
    before = {name: os.environ.get(name) for name in _TUNE_SILENT}
    os.environ.update(_TUNE_SILENT)
    # It has the standard error of before the redirection.
    logger = logging.getLogger("ray.tune")
    propagated = logger.propagate
    try:
        with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            handler = logging.StreamHandler(file)
            logger.addHandler(handler)
            logger.propagate = False
            try:
                yield
            finally:
                logger.removeHandler(handler)
    finally:
        logger.propagate = propagated
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _concluded(
    definition: Sweep, folder: SweepFolder, complete: bool, at_once: int, console: SweepConsole
) -> SweepResult:
    trials = [folder.trials[number] for number in sorted(folder.trials)]
    best = best_trial(definition, trials)
    front = pareto_front(definition, trials)
    status: Literal["finished", "failed", "interrupted"] = "interrupted"
    if complete:
        status = "finished" if best is not None else "failed"
        for trial in trials:
            wanted = trial.number in front or (best is not None and trial.number == best.number)
            if wanted and not any(name.startswith("test/") for name in trial.metrics):
                console.message(f"scoring the test images with {trial.name}")
                trial.metrics |= _test_scores(evaluate(load(folder.run_dir(trial))))
                folder.note(trial)
    result = SweepResult(folder.path, status, definition, tuple(trials), best, front, at_once)
    folder.write_table(trials)
    write_report(result.sweep, result.trials, result.best, result.front, result.run_dir)
    return result


def _test_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the test scores, of several networks their mean."""
    found: dict[str, list[float]] = {}
    for name, value in scores.items():
        owner, split, score = f"/{name}".rsplit("/", 2)
        if split == "test" and owner.strip("/") != "ensemble":
            found.setdefault(f"test/{score}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}

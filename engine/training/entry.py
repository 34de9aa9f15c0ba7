"""A training from its recipe to its result: folder, images, learners, the loop, and what is left of it all."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from engine.errors import InputError, LearnerError, RunError
from engine.paths import absolute, check_writable
from engine.recipes import (
    Plan,
    Recipe,
    cautions,
    plan_cautions,
    plan_with_absolute_paths,
    with_absolute_paths,
)
from engine.recipes.arguments import check_place, check_plan, check_recipe
from engine.tasks import headline_of
from engine.tracking import Console, Preparation, open_console
from engine.training.environment import describe_environment, files_changed_since
from engine.training.finished import earlier_faults, finished_result
from engine.training.folder import Resume, RunFolder, choose_folder, read_recipe, with_stored_cuts
from engine.training.holding import refuse_held
from engine.training.mirror import open_mirror
from engine.training.preview import check_batches
from engine.training.recovery import start_at_first, train_on
from engine.training.result import Result
from engine.training.resuming import newest_of_run
from engine.training.run_record import RunRecord
from engine.training.session import Session


def train(
    recipe: Recipe,
    plan: Plan | None = None,
    run_dir: str | Path | None = None,
    resume: Resume = "auto",
    console: Console | None = None,
    until_step: int | None = None,
) -> Result:
    """Train a recipe, or go on with a run of it that was interrupted.

    The same recipe gives the same weights bit for bit in process, on Ray, after an interruption, and after a process of
    the run has ended and the team was started again.

    Args:
        recipe: what to train.
        plan: where and how it runs; Ray on this machine unless given.
        run_dir: the run folder; `runs/NAME-DIGEST` unless given.
        resume: ``auto`` goes on from the newest complete checkpoint in the folder and returns the result of a run
            that is finished; ``never`` starts a new run beside it.
        console: where progress is shown; nowhere unless given.
        until_step: stops after so many steps of the whole run, as an interruption at that step would; the same call
            without it goes on.

    Raises:
        RecipeError, PlanError, DataError, RunError, VersionError: the input cannot be used; nothing was trained.
        LearnerError: a learner failed; the newest checkpoint is whole.
        RayEnded, NotRecovered: its process or Ray ended, and could not be started again; so is the checkpoint then.
        DriverPreempted: the cluster takes this node away; a checkpoint was made before.
    """
    started = time.monotonic()
    plan = Plan() if plan is None else plan
    check_recipe(recipe)
    check_plan(plan)
    if run_dir is not None:
        check_place("run_dir", run_dir, RunError)
    recipe, plan = with_absolute_paths(recipe), plan_with_absolute_paths(plan)
    is_shown = console is not None
    console = console or open_console(sys.stderr, quiet=True)
    wanted = absolute(run_dir, "--run-dir", RunError) if run_dir is not None else None
    folder_path = absolute(choose_folder(recipe, wanted, resume), "--run-dir", RunError)
    refuse_held(folder_path, "training")
    mirror = open_mirror(plan.mirror, folder_path, recipe, resume, console.message)
    recipe = with_stored_cuts(recipe, folder_path)
    finished = finished_result(folder_path, recipe, console.message)
    if finished is not None:
        root = recipe.data.root
        # Of a recipe that is damaged and may not be written anew nobody knows it.
        with contextlib.suppress(InputError):
            root = read_recipe(folder_path).data.root
        if root != recipe.data.root:
            # A run that has moved with its data is the same run, and one of other data is not.
            with Session(recipe, plan, Preparation(console.message), trained=True) as session:
                facts = session.source.facts
                newest_of_run(folder_path / "checkpoints", recipe, facts, None, console.message)
        if mirror is not None and (warning := mirror.finish(finished.steps)) is not None:
            console.message(warning)
        since = "".join(f"; since then {change}" for change in files_changed_since(folder_path, recipe))
        console.message(f"{folder_path} is finished already; --resume never starts a new run beside it{since}")
        return finished
    check_writable(folder_path, "--run-dir", RunError)
    # The folder is let go last: until the learners have ended, another command must not start its own beside them.
    with contextlib.ExitStack() as held, Session(recipe, plan, Preparation(console.message), check=True) as session:
        source = session.source
        check_batches(recipe, source.facts)
        try:
            told = session.choose_cuts(console.message)
            recipe = session.recipe
            first = start_at_first(session, console.message)
        except LearnerError as error:
            # There is no run folder yet whose log could keep them.
            console.message(error.details)
            raise
        folder = RunFolder(folder_path, recipe, plan, describe_environment(recipe))
        held.callback(folder.close)
        for line in [*told, *first.told]:
            folder.log(line)
        folder.write_json("data.json", source.inventory.to_json())
        for line in source.inventory.lines() if is_shown else ():
            console.message(line)
        if recipe.data.labelled_fraction is not None or recipe.data.labelled_indices is not None:
            folder.write_lines("labelled_indices.txt", source.labelled_indices())
        patience = plan.recovery.checkpoint_patience_seconds
        record = RunRecord(folder, console, mirror, headline_of(recipe), started, patience)
        record.faults.found = [*earlier_faults(folder_path), *first.faults.found]
        try:
            for caution in [*cautions(recipe), *plan_cautions(plan)]:
                record.say(caution)
            result = train_on(session, record, until_step)
        except BaseException:
            record.by_products.mirror_the_end()
            raise
        return record.mirrored(result)

"""The training loop: one for all methods and runtimes; it does not know how many learners there are."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from engine.atomic import remove_unfinished, write_error
from engine.checkpoints import LearnerState, save_checkpoint
from engine.errors import EngineError, LearnerError, RunError
from engine.methods import networks_sha256
from engine.paths import absolute, check_writable
from engine.recipes import (
    Plan,
    Recipe,
    cautions,
    plan_with_absolute_paths,
    recipe_identity,
    recipe_to_dict,
    with_absolute_paths,
)
from engine.tasks import headline_of, task_of
from engine.tracking import Console, Preparation, open_console
from engine.training.departures import Departures
from engine.training.environment import describe_environment
from engine.training.finished import finished_result
from engine.training.folder import Resume, RunFolder, choose_folder, with_stored_cuts
from engine.training.holding import refuse_held
from engine.training.interruption import Interruption
from engine.training.mirror import open_mirror
from engine.training.preview import check_batches
from engine.training.ray_log import ray_log
from engine.training.recalibration import recalibrate
from engine.training.reports import Progress, Questions, mean_score
from engine.training.result import Result, Status
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

    The same recipe gives the same weights bit for bit in process, on Ray, and after an interruption.

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
    """
    started = time.monotonic()
    recipe, plan = with_absolute_paths(recipe), plan_with_absolute_paths(plan or Plan())
    is_shown = console is not None
    console = console or open_console(sys.stderr, quiet=True)
    wanted = absolute(run_dir, "--run-dir", RunError) if run_dir is not None else None
    folder_path = absolute(choose_folder(recipe, wanted, resume), "--run-dir", RunError)
    refuse_held(folder_path, "training")
    mirror = open_mirror(plan.mirror, folder_path, recipe, resume, console.message)
    recipe = with_stored_cuts(recipe, folder_path)
    finished = finished_result(folder_path, recipe, console.message)
    if finished is not None:
        if mirror is not None and (warning := mirror.finish(finished.steps)) is not None:
            console.message(warning)
        console.message(f"{folder_path} is finished already; --resume never starts a new run beside it")
        return finished
    check_writable(folder_path, "--run-dir", RunError)
    with contextlib.ExitStack() as opened:
        session = opened.enter_context(Session(recipe, plan, Preparation(console.message), check=True))
        source = session.source
        check_batches(recipe, source.facts)
        try:
            lines_of_cuts = session.choose_cuts(console.message)
            recipe = session.recipe
            session.start()
        except LearnerError as error:
            # There is no run folder yet whose log could keep them.
            console.message(error.details)
            raise
        folder = RunFolder(folder_path, recipe, plan, describe_environment())
        opened.callback(folder.close)
        for line in lines_of_cuts:
            folder.log(line)
        folder.write_json("data.json", source.inventory.to_json())
        for line in source.inventory.lines() if is_shown else ():
            console.message(line)
        if recipe.data.labelled_fraction is not None or recipe.data.labelled_indices is not None:
            folder.write_lines("labelled_indices.txt", source.labelled_indices())
        record = RunRecord(folder, console, mirror, headline_of(recipe), started)
        try:
            for caution in cautions(recipe):
                record.say(caution)
            result = Training(session, record, until_step).run()
        except BaseException:
            record.by_products.mirror_the_end()
            raise
        return record.mirrored(result)


class Training:
    """One way through the training loop: from the newest checkpoint to the end, an interruption or a failure.

    After a failure another one goes on, with the same record and learners that were started anew.

    Args:
        session: whose learners have just been started.
        record: of the run.
        until_step: stops after so many steps of the whole run; at its end unless given.
    """

    def __init__(self, session: Session, record: RunRecord, until_step: int | None = None) -> None:
        self._recipe, self._plan = session.recipe, session.plan
        self._source, self._team, self._runtime = session.source, session.team, session.runtime
        self._record, self._folder = record, record.folder
        self._steps_per_epoch = self._source.steps_per_epoch()
        self._total = self._recipe.epochs * self._steps_per_epoch
        self._last = self._total if until_step is None else min(until_step, self._total)
        self._questions = Questions(self._runtime)
        self._progress = Progress(record.write)
        self._states: dict[str, LearnerState] = {}
        self._memory: dict[str, dict[str, int]] = {}
        self._departures = Departures(self._team.networks.values(), record.say)

    def run(self) -> Result:
        """Train; returns what came of it, which the folder then holds.

        Raises:
            LearnerError: a learner failed; the newest checkpoint is whole.
            RunError: the checkpoint is of another run, or the folder cannot be written to.
        """
        try:
            # A process that was killed while it wrote one leaves it behind.
            remove_unfinished(self._folder.path)
            step = self._resume()
            self._record.begin(step)
            for learner, place in self._runtime.describe().items():
                self._folder.log(f"{learner} lives in {place}")
            with ray_log(self._folder.path), Interruption(self._runtime) as interruption:
                self._record.console.start(
                    self._recipe.name, self._team.names, self._total, step, self._record.headline
                )
                step = self._steps(step, interruption)
                status: Status = "finished" if step == self._total else "interrupted"
                self._record.check_presence()
                result = self._concluded(step, status)
                self._record.write_result(result)
                return result
        except EngineError as error:
            # A disk that is full as well must not hide it.
            with contextlib.suppress(EngineError):
                self._folder.log(f"failed: {error}\n{getattr(error, 'details', '')}")
            self._questions.salvage()
            if isinstance(error, RunError):
                self._record.check_presence()
            raise
        except OSError as error:
            self._record.check_presence()
            raise write_error(Path(os.fsdecode(error.filename or self._folder.path)), error) from error
        finally:
            self._record.end()

    def _resume(self) -> int:
        checkpoint = newest_of_run(
            self._folder.checkpoints, self._recipe, self._source.facts, self._team.names, self._record.say
        )
        if checkpoint is None:
            return 0
        self._runtime.restore(checkpoint.states)
        self._progress.latest.update(checkpoint.values["latest"])
        self._states = checkpoint.states
        self._record.say(f"goes on from {checkpoint.path} (step {checkpoint.step} of {self._total})")
        return checkpoint.step

    def _steps(self, step: int, interruption: Interruption) -> int:
        """Run steps from ``step`` on; returns how many are finished."""
        every = self._plan.checkpoint_every_steps or self._steps_per_epoch
        while step < self._last and not interruption.requested:
            epoch, index = divmod(step, self._steps_per_epoch)
            self._runtime.submit(self._team.program(step), self._source.batch(epoch, index))
            step += 1
            ends_epoch = step % self._steps_per_epoch == 0
            if ends_epoch or step % self._plan.report_every_steps == 0:
                self._questions.ask("metrics", self._progress.metrics(epoch + 1, step))
                self._questions.ask("departure", self._departures.note)
            if ends_epoch and ((epoch + 1) % self._plan.evaluate_every_epochs == 0 or step == self._total):
                self._evaluate(epoch + 1, step)
            if step % every == 0 and step < self._last and not interruption.requested:
                self._checkpoint(step)
        self._questions.ask("departure", self._departures.note)
        self._checkpoint(step)
        self._questions.ask("memory", self._memory.update)
        self._runtime.finish()
        self._questions.finish()
        return step

    def _evaluate(self, epoch: int, step: int) -> None:
        recalibrate(self._runtime, self._team, self._source)
        splits = task_of(self._recipe, self._source.facts).evaluation_splits
        for split in splits if self._plan.evaluate_test else ("validation",):
            if self._source.facts.sizes.get(split):
                for batch in self._source.evaluation_batches(split):
                    self._runtime.submit(self._team.evaluation, batch)
                self._questions.ask("score", self._progress.score(epoch, step, split))

    def _checkpoint(self, step: int) -> None:
        def save(states: dict[str, Any]) -> None:
            self._states = states
            self._record.check_presence()
            values = {
                "recipe": recipe_identity(self._recipe),
                "facts": self._source.facts.to_json(),
                "latest": dict(self._progress.latest),
            }
            save_checkpoint(self._folder.checkpoints, step, states, values, self._plan.keep_checkpoints)
            self._folder.log(f"checkpoint after step {step}")
            self._record.by_products.mirror(step)

        self._questions.ask("state", save)

    def _concluded(self, step: int, status: Status) -> Result:
        choices = recipe_to_dict(self._recipe) if status == "finished" else None
        scores = {name: value for name, value in self._progress.latest.items() if value == value}
        self._record.finish(self._recipe.name, choices, scores)
        return Result(
            run_dir=self._folder.path,
            status=status,
            epochs=step // self._steps_per_epoch,
            steps=step,
            headline=self._record.headline.name,
            test_score=mean_score(
                self._progress.latest, self._team.networks, self._departures.reasons, self._record.headline
            ),
            metrics=dict(self._progress.latest),
            images_per_second=self._progress.images_per_second(),
            waiting_share=self._progress.waiting_shares(),
            peak_memory_bytes={name: parts["total"] for name, parts in self._memory.items()},
            memory_parts=self._memory,
            deployed_parameters=self._team.deployed_parameters,
            trained_parameters=self._team.trained_parameters,
            weights_sha256=networks_sha256(self._team.networks, self._source.facts, self._states),
            departures=self._departures.reasons,
            seconds=time.monotonic() - self._record.started,
            warnings=tuple(self._record.by_products.warnings),
        )

"""The training loop: one for all methods and runtimes; it does not know how many learners there are."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from engine.atomic import remove_unfinished, write_error
from engine.checkpoints import Checkpoint, LearnerState, save_checkpoint
from engine.errors import BEGINS_AGAIN, GOES_ON, EngineError, LearnersAway, RunError
from engine.methods import networks_sha256
from engine.recipes import recipe_identity, recipe_to_dict
from engine.tasks import task_of
from engine.training.diverged import DivergedLearners
from engine.training.environment import changes
from engine.training.interruption import Interruption
from engine.training.ray_log import ray_log
from engine.training.reports import Progress, Questions, mean_score
from engine.training.result import Result, Status
from engine.training.resuming import wait_for_newest
from engine.training.run_record import SUMMARY_NAME, RunRecord
from engine.training.session import Session
from engine.training.snapshots import Snapshots

_CHECKPOINT = "a checkpoint"


class Training:
    """One way through the training loop: from the newest checkpoint or snapshot to the end, a signal or a failure.

    After a failure another one goes on, with the same record and learners that were started anew.

    Args:
        session: whose learners have just been started.
        record: of the run.
        snapshots: of an earlier way, and for the next one.
        until_step: stops after so many steps of the whole run; at its end unless given.
    """

    def __init__(
        self, session: Session, record: RunRecord, snapshots: Snapshots, until_step: int | None = None
    ) -> None:
        self._session, self._recipe, self._plan = session, session.recipe, session.plan
        self._source, self._team, self._runtime = session.source, session.team, session.runtime
        self._record, self._folder, self._snapshots = record, record.folder, snapshots
        self._steps_per_epoch = self._source.steps_per_epoch()
        self._total = self._recipe.epochs * self._steps_per_epoch
        self._last = self._total if until_step is None else min(until_step, self._total)
        self._questions = Questions(self._runtime)
        self._progress = Progress(record.write)
        self._states: dict[str, LearnerState] = {}
        self.saved = 0
        """Steps of the newest checkpoint; 0 before there is one."""
        self.first_step = 0
        """Steps after which the learners had the states with which this way begins."""
        # False once an interruption has come before those were back that the newest evaluation has waited for.
        self._is_evaluated = True
        self.is_ending = False
        """Whether the last step and evaluation were asked for."""
        self._interruption = Interruption(self._runtime)
        self._memory: dict[str, dict[str, int]] = {}
        self._diverged = DivergedLearners(self._team.networks.values(), record.say)

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
            self.first_step = step
            self._record.begin(step, self._is_evaluated)
            for learner, place in self._runtime.describe().items():
                self._folder.log(f"{learner} lives in {place}")
            with ray_log(self._folder.path), self._interruption as interruption:
                self._record.console.start(
                    self._recipe.name, self._team.names, self._total, step, self._record.headline
                )
                step = self._steps(step, interruption)
                status: Status = "finished" if step == self._total and self._is_evaluated else "interrupted"
                self._record.check_presence()
                self._record.wait_for_metrics(self._is_hurried)
                result = self._concluded(step, status)
                self._record.patience.wait_for(
                    SUMMARY_NAME, lambda: self._record.write_result(result), self._is_hurried
                )
                return result
        except EngineError as error:
            text = str(error) if self.saved else str(error).replace(GOES_ON, BEGINS_AGAIN)
            self._folder.log(f"failed: {text}\n{getattr(error, 'details', '')}")
            self._questions.salvage()
            if isinstance(error, RunError):
                self._record.check_presence()
            raise
        except OSError as error:
            self._record.check_presence()
            raise write_error(Path(os.fsdecode(error.filename or self._folder.path)), error) from error
        finally:
            self._record.end()

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal has asked it to end."""
        return self._interruption.requested

    @property
    def diverged(self) -> Collection[str]:
        """Names of the learners that have left their cohort, as far as they have said so."""
        return self._diverged.reasons.keys()

    def _is_hurried(self) -> bool:
        return self.is_interrupted

    def _resume(self) -> int:
        place, facts, record = self._folder.checkpoints, self._source.facts, self._record
        checkpoint = wait_for_newest(place, self._recipe, facts, self._team.names, record)
        self.saved = checkpoint.step if checkpoint is not None else 0
        snapshots, step = self._snapshots, 0
        states = snapshots.after(checkpoint)
        if states is not None:
            step, latest, whence = snapshots.step, snapshots.latest, "a snapshot in memory"
        elif checkpoint is not None:
            states, step, latest = checkpoint.states, checkpoint.step, checkpoint.values["latest"]
            whence = str(checkpoint.path)
            self._is_evaluated = checkpoint.values.get("is_evaluated", True)
            self._say_what_has_changed(checkpoint)
            # A run folder is one run's, so an earlier command's are this run's.
            self._record.absences.load(checkpoint.values.get("absences", []))
        snapshots.begin(step)
        if states is not None:
            self._runtime.restore(states)
            # A learner that is lost before the first answer must not leave only those who train nothing.
            self._diverged.note({name: state.extra.get("diverged") for name, state in states.items()})
            self._progress.latest.update(latest)
            self._states = states
            self._record.say(f"goes on from {whence} (step {step} of {self._total})")
        return step

    def _say_what_has_changed(self, checkpoint: Checkpoint) -> None:
        if changed := changes(checkpoint.values.get("environment"), self._folder.environment):
            what = "; ".join(changed)
            self._record.say(
                f"since {checkpoint.path} was written {what}: what comes now may differ from a run in one piece"
            )

    def _steps(self, step: int, interruption: Interruption) -> int:
        """Run steps from ``step`` on; returns how many are finished."""
        every = self._plan.checkpoint_every_steps or self._steps_per_epoch
        if not self._is_evaluated:
            self._evaluate(step // self._steps_per_epoch, step)
        while step < self._last and not interruption.requested:
            self._heed_notice(step)
            epoch, index = divmod(step, self._steps_per_epoch)
            self._runtime.submit(self._team.program(step), self._source.batch(epoch, index))
            step += 1
            ends_epoch = step % self._steps_per_epoch == 0
            if ends_epoch or step % self._plan.report_every_steps == 0:
                self._questions.ask("metrics", self._progress.metrics(epoch + 1, step))
                self._questions.ask("diverged", self._diverged.note)
            if ends_epoch and ((epoch + 1) % self._plan.evaluate_every_epochs == 0 or step == self._total):
                self._evaluate(epoch + 1, step)
            if step == self._last or interruption.requested:
                continue
            if step % every == 0 or self._record.patience.is_time_for(_CHECKPOINT):
                self._checkpoint(step)
            elif self._is_time_for_snapshot(step):
                self._snapshot(step)
        self._questions.ask("diverged", self._diverged.note)
        self.is_ending = True
        self._checkpoint(step, is_last=True)
        self._questions.ask("memory", self._memory.update)
        self._runtime.finish()
        self._questions.finish()
        return step

    def _heed_notice(self, step: int) -> None:
        """End this way in order if a node is about to be taken away: whoever goes on elsewhere repeats no step."""
        notice = self._runtime.notice()
        if notice is None:
            return
        self._runtime.finish()
        self._questions.finish()
        if step > self.saved:
            # On the disk, because the driver's own node may be the next; kept in memory where the disk takes nothing.
            self._checkpoint(step)
            self._questions.finish()
        raise notice

    def _evaluate(self, epoch: int, step: int) -> None:
        try:
            self._ask_for_scores(epoch, step)
        except LearnersAway as away:
            self._record.say(f"{away}; the command that goes on scores all after step {step:,}")
            self._is_evaluated = False
        else:
            self._is_evaluated = True

    def _ask_for_scores(self, epoch: int, step: int) -> None:
        self._session.recalibrate()
        task = task_of(self._recipe, self._source.facts)
        for split in task.evaluation_splits if self._plan.evaluate_test else ("validation",):
            if self._source.facts.sizes.get(split):
                for batch in self._source.evaluation_batches(split):
                    for version in task.evaluation_versions(batch):
                        self._runtime.submit(self._team.evaluation, version)
                self._questions.ask("score", self._progress.score(epoch, step, split))

    def _checkpoint(self, step: int, is_last: bool = False) -> None:
        is_evaluated = self._is_evaluated

        def save(answers: dict[str, Any]) -> None:
            self._snapshots.keep(step, answers, self._progress.latest)
            self._states = states = dict(self._snapshots.states)
            values = {
                "recipe": recipe_identity(self._recipe),
                "facts": self._source.facts.to_json(),
                "latest": dict(self._progress.latest),
                "absences": self._record.absences.to_json(step),
                "is_evaluated": is_evaluated,
                "environment": self._folder.environment,
            }

            def write() -> None:
                # A folder that somebody has moved away must not be made anew.
                self._record.check_presence()
                save_checkpoint(self._folder.checkpoints, step, states, values, self._plan.keep_checkpoints)

            patience = self._record.patience
            if is_last:
                patience.wait_for(_CHECKPOINT, write, self._is_hurried)
            else:
                try:
                    write()
                except RunError as error:
                    # The states stay among the snapshots, with what knowledge has changed since the last one.
                    patience.failed(_CHECKPOINT, error)
                    return
                patience.succeeded(_CHECKPOINT)
            self.saved = step
            self._snapshots.saved()
            self._folder.log(f"checkpoint after step {step}")
            self._record.by_products.mirror(step)

        self._snapshots.asked(step)
        self._questions.ask("state", save)

    def _is_time_for_snapshot(self, step: int) -> bool:
        step_seconds = self._progress.step_seconds(self._recipe.data.batch_size)
        return self._runtime.needs_states or self._snapshots.is_due(step, step_seconds)

    def _snapshot(self, step: int) -> None:
        def keep(answers: dict[str, Any]) -> None:
            self._snapshots.keep(step, answers, self._progress.latest)

        self._snapshots.asked(step)
        self._questions.ask("state", keep)

    def _concluded(self, step: int, status: Status) -> Result:
        choices = recipe_to_dict(self._recipe) if status == "finished" else None
        scores = {name: value for name, value in self._progress.latest.items() if value == value}
        self._record.faults.settle()
        for line in self._record.absences.describe():
            self._record.say(line)
        self._record.finish(self._recipe.name, choices, scores)
        best = self._record.best_scores(self._team.networks, self._diverged.reasons)
        return Result(
            run_dir=self._folder.path,
            status=status,
            epochs=step // self._steps_per_epoch,
            steps=step,
            headline=self._record.headline.name,
            test_score=mean_score(
                self._progress.latest, self._team.networks, self._diverged.reasons, self._record.headline
            ),
            metrics=dict(self._progress.latest),
            images_per_second=self._progress.images_per_second(),
            waiting_share=self._progress.waiting_shares(),
            peak_memory_bytes={name: parts["total"] for name, parts in self._memory.items()},
            memory_parts=self._memory,
            deployed_parameters=self._team.deployed_parameters,
            trained_parameters=self._team.trained_parameters,
            weights_sha256=networks_sha256(self._team.networks, self._source.facts, self._states),
            diverged=self._diverged.reasons,
            seconds=time.monotonic() - self._record.started,
            warnings=tuple(self._record.by_products.warnings),
            faults=tuple(self._record.faults.found),
            absences=tuple(self._record.absences.found),
            best=best,
        )

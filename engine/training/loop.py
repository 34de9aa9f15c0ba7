"""The training loop: one for all methods and runtimes; it does not know how many learners there are."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.atomic import write_error
from engine.data import Facts, Source, open_source
from engine.errors import EngineError, LearnerError, RunError
from engine.learners import LearnerState
from engine.learners.checkpoints import Checkpoint, newest_checkpoint, save_checkpoint
from engine.methods import Team, assemble, method_of, weights_sha256
from engine.recipes import Plan, Recipe, recipe_identity, recipe_to_dict, with_absolute_paths
from engine.runtimes import Runtime, open_runtime
from engine.tracking import Console, MetricsLog, Record, TensorBoardLog, open_console, plot_curves, read_metrics
from engine.training.environment import describe_environment
from engine.training.folder import Resume, RunFolder, choose_folder, read_summary
from engine.training.interruption import Interruption
from engine.training.mirror import Mirror, open_mirror
from engine.training.preview import check_batches
from engine.training.ray_log import ray_log
from engine.training.recalibration import recalibrate
from engine.training.reports import Progress, Questions, mean_test_accuracy
from engine.training.result import Result, Status


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
        RecipeError, PlanError, DataError, RunError: the input cannot be used; nothing was trained.
        LearnerError: a learner failed; the newest checkpoint is whole.
    """
    started = time.monotonic()
    recipe, plan = with_absolute_paths(recipe), plan or Plan()
    console = console or open_console(sys.stderr, quiet=True)
    folder_path = choose_folder(recipe, Path(run_dir) if run_dir is not None else None, resume)
    mirror = open_mirror(plan.mirror, folder_path, recipe, resume, console.message)
    summary = read_summary(folder_path)
    if summary is not None and summary["status"] == "finished":
        if mirror is not None and (warning := mirror.finish(summary["steps"])) is not None:
            console.message(warning)
        console.message(f"{folder_path} is finished already; --resume never starts a new run beside it")
        return Result.from_json(summary, folder_path)
    source = open_source(
        recipe.data,
        recipe.seed,
        lambda text, share: console.message(f"{text} {share:.0%}"),
        companions=getattr(recipe.method, "companions", "none"),
    )
    try:
        team = method_of(recipe).team(recipe, source.facts)
        check_batches(recipe, source.facts)
        try:
            runtime = open_runtime(recipe, source.facts, team, source.steps_per_epoch(), plan)
        except LearnerError as error:
            # There is no run folder yet whose log could keep them.
            console.message(error.details)
            raise
        try:
            folder = RunFolder(folder_path, recipe, plan, describe_environment())
            try:
                if recipe.data.labelled_fraction is not None or recipe.data.labelled_indices is not None:
                    folder.write_lines("labelled_indices.txt", source.labelled_indices())
                caution = getattr(recipe.method, "caution", None)
                if caution is not None:
                    console.message(caution)
                    folder.log(caution)
                run = _Run(recipe, plan, source, team, runtime, folder, console, mirror, until_step)
                try:
                    return run.train(started)
                finally:
                    run.mirror_the_end()
            finally:
                folder.close()
        finally:
            runtime.close()
    finally:
        source.close()


class _Run:
    """One training while it lasts."""

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        source: Source,
        team: Team,
        runtime: Runtime,
        folder: RunFolder,
        console: Console,
        mirror: Mirror | None,
        until_step: int | None,
    ) -> None:
        self._recipe, self._plan, self._source, self._team = recipe, plan, source, team
        self._runtime, self._folder, self._console, self._mirror = runtime, folder, console, mirror
        self._steps_per_epoch = source.steps_per_epoch()
        self._total = recipe.epochs * self._steps_per_epoch
        self._last = self._total if until_step is None else min(until_step, self._total)
        self._questions = Questions(runtime)
        self._progress = Progress(self._emit)
        self._sinks: list[Any] = []
        self._states: dict[str, LearnerState] = {}
        self._memory: dict[str, dict[str, int]] = {}
        self._departures: dict[str, str] = {}

    def train(self, started: float) -> Result:
        """Train from the newest checkpoint to the end, or to an interruption."""
        step = self._resume()
        self._sinks = [
            MetricsLog(self._folder.path, step or None),
            TensorBoardLog(self._folder.path, step or None),
        ]
        for learner, place in self._runtime.describe().items():
            self._folder.log(f"{learner} lives in {place}")
        try:
            with ray_log(self._folder.path), Interruption(self._runtime) as interruption:
                self._console.start(self._recipe.name, self._team.names, self._total, step)
                step = self._steps(step, interruption)
                status: Status = "finished" if step == self._total else "interrupted"
                result = self._concluded(step, status, started)
                for sink in self._sinks:
                    sink.close()
                plot_curves(read_metrics(self._folder.path), self._folder.path / "curves.png", self._recipe.name)
                # Last, because whoever reads it takes all the rest to be there.
                self._folder.write_json("summary.json", result.to_json())
                return result
        except EngineError as error:
            # A disk that is full as well must not hide it.
            with contextlib.suppress(EngineError):
                self._folder.log(f"failed: {error}\n{getattr(error, 'details', '')}")
            self._questions.salvage()
            raise
        except OSError as error:
            raise write_error(self._folder.path, error) from error
        finally:
            for sink in self._sinks:
                with contextlib.suppress(OSError):
                    sink.close()

    def _resume(self) -> int:
        checkpoint, skipped = newest_checkpoint(self._folder.checkpoints)
        for line in skipped:
            self._console.message(line)
            self._folder.log(line)
        if checkpoint is None:
            return 0
        self._check_same_run(checkpoint)
        self._runtime.restore(checkpoint.states)
        self._progress.latest.update(checkpoint.values["latest"])
        self._states = checkpoint.states
        text = f"goes on from {checkpoint.path} (step {checkpoint.step} of {self._total})"
        self._console.message(text)
        self._folder.log(text)
        return checkpoint.step

    def _check_same_run(self, checkpoint: Checkpoint) -> None:
        if checkpoint.values["recipe"] != recipe_identity(self._recipe):
            raise RunError(
                f"{checkpoint.path}: belongs to another recipe than {self._folder.path / 'recipe.json'}; remove it, or "
                "give another --run-dir"
            )
        facts = Facts.from_json(checkpoint.values["facts"])
        if facts.fingerprint != self._source.facts.fingerprint:
            raise RunError(
                f"{checkpoint.path}: was trained on other images than data.root={self._recipe.data.root} holds now "
                f"({facts.describe()} then, {self._source.facts.describe()} now); give the same images and labels, or "
                "another --run-dir"
            )

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
                self._questions.ask("departure", self._note_departures)
            if ends_epoch and ((epoch + 1) % self._plan.evaluate_every_epochs == 0 or step == self._total):
                self._evaluate(epoch + 1, step)
            if step % every == 0 and step < self._last and not interruption.requested:
                self._checkpoint(step)
        self._questions.ask("departure", self._note_departures)
        self._checkpoint(step)
        self._questions.ask("memory", self._memory.update)
        self._runtime.finish()
        self._questions.finish()
        return step

    def _evaluate(self, epoch: int, step: int) -> None:
        recalibrate(self._runtime, self._team, self._source)
        for split in ("validation", "test") if self._plan.evaluate_test else ("validation",):
            if self._source.facts.sizes.get(split):
                for batch in self._source.evaluation_batches(split):
                    self._runtime.submit(self._team.evaluation, batch)
                self._questions.ask("score", self._progress.score(epoch, step, split))

    def _checkpoint(self, step: int) -> None:
        def save(states: dict[str, Any]) -> None:
            self._states = states
            values = {
                "recipe": recipe_identity(self._recipe),
                "facts": self._source.facts.to_json(),
                "latest": dict(self._progress.latest),
            }
            save_checkpoint(self._folder.checkpoints, step, states, values, self._plan.keep_checkpoints)
            self._folder.log(f"checkpoint after step {step}")
            self._warn(self._mirror.update(step) if self._mirror is not None else None)

        self._questions.ask("state", save)

    def mirror_the_end(self) -> None:
        """Send the mirror what was written after the last checkpoint."""
        self._warn(self._mirror.finish() if self._mirror is not None else None)

    def _warn(self, warning: str | None) -> None:
        if warning is not None:
            self._console.message(warning)
            self._folder.log(warning)

    def _note_departures(self, answers: dict[str, str | None]) -> None:
        """Say which peers have left their cohort; raises LearnerError when nobody is left."""
        for learner, reason in answers.items():
            if reason is not None and learner not in self._departures:
                self._departures[learner] = reason
                text = f"{learner} has left the cohort: {reason}"
                self._console.message(text)
                self._folder.log(text)
        left = [set(network.learners) & set(self._departures) for network in self._team.networks.values()]
        if all(left):
            learner = min(left[-1])
            raise LearnerError(learner, f"every peer has left the cohort, this one last: {self._departures[learner]}")

    def _emit(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        for sink in self._sinks:
            sink.write(records)
        self._console.update(step, epoch, records)

    def _concluded(self, step: int, status: Status, started: float) -> Result:
        digests = {
            name: weights_sha256(assemble(network, self._source.facts, self._states).state_dict())
            for name, network in self._team.networks.items()
        }
        result = Result(
            run_dir=self._folder.path,
            status=status,
            epochs=step // self._steps_per_epoch,
            steps=step,
            test_accuracy=mean_test_accuracy(self._progress.latest, self._team.networks, self._departures),
            metrics=dict(self._progress.latest),
            images_per_second=self._progress.images_per_second(),
            waiting_share=self._progress.waiting_shares(),
            peak_memory_bytes={name: parts["total"] for name, parts in self._memory.items()},
            memory_parts=self._memory,
            deployed_parameters=sum(learner.parameters for learner in self._team.learners),
            trained_parameters=sum(
                learner.parameters + learner.auxiliary_parameters for learner in self._team.learners
            ),
            weights_sha256="-".join(digests.values()),
            departures=self._departures,
            seconds=time.monotonic() - started,
        )
        if status == "finished":
            scores = {name: value for name, value in result.metrics.items() if value == value}
            self._sinks[1].write_hparams(_flat_choices(recipe_to_dict(self._recipe)), scores)
        return result


def _flat_choices(values: dict[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    flat: dict[str, int | float | str | bool] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat_choices(value, f"{prefix}{name}."))
        elif value is not None:
            flat[prefix + name] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat

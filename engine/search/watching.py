"""Record of a search's trials while Ray Tune runs them."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from ray import tune

from engine.errors import (
    DataError,
    FolderHeld,
    InputError,
    Interrupted,
    LearnerLost,
    LearnerPreempted,
    NotRecovered,
    NotWritten,
    OwnFileChanged,
    RecipeError,
    RunError,
)
from engine.recipes import Plan, Recipe, plan_to_dict, recipe_to_dict
from engine.runtimes.ray.bundles import IN_TIME
from engine.runtimes.ray.private.current import current_private_ray
from engine.search.console import SweepConsole
from engine.search.definition import Sweep
from engine.search.folder import SweepFolder
from engine.search.generations import PopulationQueue
from engine.search.hanging import HangingTrials
from engine.search.needs import Needs
from engine.search.reporting import setting_in_words, table_rows, value_in_words
from engine.search.searcher import TrialQueue
from engine.search.settings import Settings, recipe_with
from engine.search.stopping import Stop
from engine.search.trainable import EPOCH
from engine.search.trial import Status, Trial
from engine.training.folder import read_summary

TRIES_AFTER_LOSS = 3
"""How often one trial that loses its process or node is tried again before the search gives up, in one start of it."""

_ERRORS = f"{LearnerLost.__module__}."


class Watcher(tune.Callback):
    """Keeps what becomes known of the trials, and tells it.

    Attributes:
        unreadable: why a trial that had ended could not be reported once more, which ASHA needs; None if all could.
    """

    def __init__(
        self,
        definition: Sweep,
        base: Recipe,
        plan: Plan,
        needs: Needs,
        folder: SweepFolder,
        console: SweepConsole,
        stop: Stop,
        ray_is_ours: bool,
    ) -> None:
        self._definition, self._base, self._plan, self._needs = definition, base, plan, needs
        self._folder, self._console, self._stop, self._ray_is_ours = folder, console, stop, ray_is_ours
        self._queue: TrialQueue | PopulationQueue | None = None
        self._losses: Counter[int] = Counter()
        self._hanging = HangingTrials(plan.recovery.stall_seconds)
        self._hung: dict[int, str] = {}
        self._stopped: set[str] = set()
        self.unreadable: RunError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing: Ray Tune writes itself down, but a search never reads that."""
        return {}

    def watched(self, steps: int | None) -> TrialQueue | PopulationQueue:
        """Return the trials that are left to do, of a population with so many steps from one copy to the next."""
        definition, folder = self._definition, self._folder
        if steps is None:
            self._queue = TrialQueue(
                definition, folder.trials, definition.num_samples, self.configuration, self.begun, self.refused
            )
        else:
            self._queue = PopulationQueue(
                definition,
                folder,
                steps,
                self.recipe,
                self.configuration,
                self.begun,
                self.refused,
                self._console.message,
            )
        return self._queue

    def recipe(self, trial: Trial) -> Recipe:
        """Return what a trial trains; raises RecipeError."""
        return recipe_with(self._base, self._definition, trial.settings)

    def configuration(self, trial: Trial, until_step: int | None = None) -> dict[str, Any]:
        """Return what `run_trial` needs of a trial, which pauses after a step if one is given.

        Raises:
            RecipeError, PlanError: it cannot be trained, or would never fit; Ray Tune would end the search.
            DataError: the images are not there.
        """
        ended = trial.status in ("finished", "pruned")
        if not ended:
            try:
                self._needs.factory(trial.settings)
            except DataError as error:
                # Images may be away for a moment, which says nothing against settings that do not concern them.
                if not any(name.startswith("data.") for name in self._definition.space):
                    raise
                raise RecipeError(str(error)) from error
        # A mirror holds one run.
        mirror = self._plan.mirror and f"{self._plan.mirror.rstrip('/')}/{trial.name}"
        return {
            "settings": dict(trial.settings),
            "recipe": json.dumps(recipe_to_dict(self.recipe(trial))),
            "plan": json.dumps(plan_to_dict(dataclasses.replace(self._plan, address=None, mirror=mirror))),
            "run_dir": str(self._folder.run_dir(trial)),
            "metric": self._definition.judged_by,
            "replay_only": ended,
            "until_step": until_step,
        }

    def begun(self, trial: Trial) -> None:
        """Note a trial that is given to Ray Tune."""
        if trial.status in ("finished", "pruned"):
            return
        words = "starts" if trial.status == "waiting" else "goes on"
        trial.status, trial.error = "running", None
        self._folder.note(trial)
        # A member of a population that copied none goes on as it was.
        if self._definition.scheduler != "pbt" or trial.epochs == trial.began_at:
            self._console.message(f"{trial.name} {words}: {_in_words(trial.settings)}")

    def refused(self, trial: Trial, error: InputError) -> None:
        """Note a trial that cannot be trained."""
        trial.status, trial.error = "failed", str(error)
        self._folder.note(trial)
        self._console.message(f"{trial.name} failed: {trial.error}")

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the search if a signal has come, and what hangs."""
        if self._stop.requested and self._ray_is_ours:
            # Its trials end with our connection to Ray; Tune would wait for each of them first.
            raise Interrupted
        if self._stop.requested:
            # Tune's own word for it, after which it gives back what trials have reserved.
            signal.raise_signal(signal.SIGUSR1)
        self._look_for_what_hangs()

    def _look_for_what_hangs(self) -> None:
        private = current_private_ray()
        if private is not None and (hang := private.take_hang()) is not None:
            # Trials go on with it.
            self._console.message(f"{hang}; it was let go on")
        running = {each.number: each for each in self._folder.trials.values() if each.status == "running"}
        for number, what in self._hanging.end({each: self._folder.run_dir(running[each]) for each in running}):
            if number is None:
                self._console.message(f"a trial that has not begun yet: its {what}, and was ended")
            else:
                self._hung[number] = f"its {what}, and was ended"

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note an evaluation."""
        known = self._known(trial)
        if result.get("done"):
            # Tune has asked the scheduler already; what ends by itself reports nothing more.
            self._stopped.add(trial.trial_id)
        if known.status == "running":
            known.epochs = int(result[EPOCH])
            known.metrics = {
                name: float(value)
                for name, value in result.items()
                if name.startswith("validation/") or name in ("memory_bytes", "images_per_second")
            }
            self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that has ended by itself or that the scheduler has stopped."""
        known = self._known(trial)
        if known.status != "running":
            return
        population = self._definition.scheduler == "pbt"
        epochs = self.recipe(known).epochs
        finished = _is_finished(self._folder.run_dir(known))
        pauses = population and known.epochs < epochs
        if not finished and not pauses and trial.trial_id not in self._stopped:
            self._lost(known, f"it ended, but {self._folder.run_dir(known)} does not say that it has finished")
            return
        known.status = "finished" if finished else "waiting" if population else "pruned"
        self._folder.note(known)
        value = known.metrics.get(self._definition.judged_by)
        stopped = f"{'pauses' if population else 'stopped'} after {known.epochs} of {epochs} epochs"
        self._console.message(
            f"{known.name} {'finished' if finished else stopped}: "
            f"{self._definition.judged_by} {value_in_words(self._definition, self._definition.judged_by, value)}"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that an error has ended; one that was lost is tried again, but not for ever."""
        assert self._queue is not None
        known = self._known(trial)
        status, cause, at_once = _cause(trial)
        cause = self._hung.pop(known.number, cause) if status == "lost" else cause
        if status == "lost" and self._stop.requested:
            # The signal that ends the search may have ended the trial, too.
            return
        if status == "lost" and not at_once and known.status == "running":
            self._lost(known, cause)
            return
        self._losses[known.number] += at_once
        again = at_once and self._losses[known.number] <= TRIES_AFTER_LOSS
        if known.status == "running":
            known.status, known.error = status, cause
            self._folder.note(known)
            what = f"{known.name} {'was ' * (status == 'lost')}{status}: {cause}"
            last = f"; after {TRIES_AFTER_LOSS} further tries it is left to the next start" if status == "lost" else ""
            tries = f"; it is tried again ({self._losses[known.number]} of {TRIES_AFTER_LOSS})" if again else last
            self._console.message(f"{what}{tries}")
        elif not again:
            self.unreadable = RunError(f"{self._folder.run_dir(known)}: could not be read once more: {cause}")
        if again:
            self._queue.try_again(known)

    def _lost(self, known: Trial, cause: str) -> None:
        known.status, known.error = "lost", cause
        self._folder.note(known)
        self._console.message(f"{known.name} was lost: {cause}; it is left to the next start")

    def _show(self) -> None:
        self._console.show(*table_rows(self._definition, list(self._folder.trials.values()), ()))

    def _known(self, trial: Any) -> Trial:
        assert self._queue is not None
        return self._queue.of_tune[trial.trial_id]


def _is_finished(run_dir: Path) -> bool:
    summary = read_summary(run_dir)
    return summary is not None and summary["status"] == "finished"


def _in_words(settings: Settings) -> str:
    return ", ".join(f"{name}={setting_in_words(value)}" for name, value in settings.items())


def _cause(trial: Any) -> tuple[Status, str, bool]:
    """Return whether a trial failed or was lost, what of, and whether it may be tried again at once."""
    file = getattr(trial, "error_file", None)
    text = Path(file).read_text().strip() if file and Path(file).is_file() else ""
    cause = text.rpartition("\n")[2] or "it ended without a word"
    said = cause.partition(": ")[2]
    if _is_any(cause, LearnerLost, LearnerPreempted, NotRecovered):
        return "lost", said, True
    if _is_any(cause, NotWritten, FolderHeld, OwnFileChanged) or (cause.startswith(_ERRORS) and IN_TIME in cause):
        # Nothing is known against its settings; but what it lacked it lacks a second later, too.
        return "lost", said, False
    if text and '\n  File "' not in text:
        # What is raised inside a trial comes with where it was raised; what Ray says of a dead process does not.
        return "lost", "its process ended, as when memory runs out or a node goes down", True
    # The engine's own errors say all that there is to say.
    return "failed", said if cause.startswith(_ERRORS) else cause, False


def _is_any(cause: str, *kinds: type[Exception]) -> bool:
    return cause.startswith(tuple(f"{kind.__module__}.{kind.__name__}:" for kind in kinds))

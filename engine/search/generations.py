"""Generations of a population: who trains next, and when members copy one another.

A `Searcher` of Ray Tune that gives it each generation of each member as a trial of its own. Members of a generation
train at once or in turn, as there is room; when the last one has come to its end, the worst copy the best, and the
next generation begins. Its state is the list of trials, as with other searches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from engine.errors import InputError, PlanError, RecipeError
from engine.recipes import Recipe
from engine.search.definition import Sweep
from engine.search.folder import SweepFolder
from engine.search.lineage import begin_from
from engine.search.population import donors, explored
from engine.search.settings import drawn
from engine.search.trial import Stage, Trial


class PopulationQueue(Searcher):
    """Gives Ray Tune the members of a population, generation after generation.

    Args:
        sweep: what is searched.
        folder: keeps the trials.
        steps: between two moments at which members copy each other.
        recipe: makes the recipe of a trial; raises RecipeError.
        configuration: makes the configuration of a trial that pauses after a step; raises RecipeError, PlanError and
            DataError.
        begun: told of every trial that is given away.
        refused: told of a trial whose settings make no training together, or one that never fits, and why.
        tell: told of every copy.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        steps: int,
        recipe: Callable[[Trial], Recipe],
        configuration: Callable[[Trial, int | None], dict[str, Any]],
        begun: Callable[[Trial], None],
        refused: Callable[[Trial, InputError], None],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(metric=sweep.judged_by, mode=sweep.mode)
        self._sweep, self._folder, self._steps = sweep, folder, steps
        self._recipe, self._configuration = recipe, configuration
        self._begun, self._refused, self._tell = begun, refused, tell
        for number in range(sweep.num_samples):
            trial = folder.trials.setdefault(number, Trial(number, drawn(sweep, number) or {}))
            if trial.status in ("running", "lost"):
                # In a process that is no more.
                trial.status = "waiting"
        self._ready: deque[Trial] = deque()
        self.of_tune: dict[str, Trial] = {}
        """Members by Ray Tune's names for their generations."""

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing: Ray Tune writes itself down, but a search never reads that."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Accept that Ray Tune says nothing new."""
        return True

    @property
    def is_empty(self) -> bool:
        """Whether every member has come to its end."""
        return not self._waiting()

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of the next member; None while a generation is still training."""
        while True:
            while self._ready:
                trial = self._ready.popleft()
                try:
                    configuration = self._configuration(trial, (trial.generation + 1) * self._steps)
                except (RecipeError, PlanError) as error:
                    self._refused(trial, error)
                    continue
                self.of_tune[trial_id] = trial
                self._begun(trial)
                return configuration
            states = {trial.status for trial in self._folder.trials.values()}
            if "running" in states:
                return None
            # Without one of its members a generation would choose otherwise: it waits for the next start of the search.
            if "waiting" not in states or "lost" in states:
                return Searcher.FINISHED
            self._ready.extend(self._behind())
            if not self._ready:
                self._turn()

    def try_again(self, trial: Trial) -> None:
        """Let a member that was lost go on from its newest checkpoint."""
        trial.status = "waiting"

    def _waiting(self) -> list[Trial]:
        trials = self._folder.trials
        return [trials[number] for number in sorted(trials) if trials[number].status == "waiting"]

    def _behind(self) -> list[Trial]:
        """Return the members that have not come to the end of the generation that trains."""
        members = self._waiting()
        generation = min(trial.generation for trial in members)
        due = (generation + 1) * self._sweep.perturb_every_epochs
        return [trial for trial in members if trial.generation == generation and trial.epochs < due]

    def _turn(self) -> None:
        """Let the worst members copy the best; called again after a kill in its middle, it does what is left."""
        members = self._waiting()
        generation = min(trial.generation for trial in members)
        epoch = (generation + 1) * self._sweep.perturb_every_epochs
        # Those that have copied already kept their scores, so that the choice is the same again.
        chosen = donors(self._sweep, members, epoch)
        for trial in members:
            if trial.generation > generation:
                continue
            if trial.number in chosen:
                self._copy(trial, self._folder.trials[chosen[trial.number]], epoch)
            trial.generation = generation + 1
            self._folder.note(trial)

    def _copy(self, trial: Trial, donor: Trial, epoch: int) -> None:
        before = trial.name
        stage: Stage = {"until_epoch": epoch, "run": donor.name, "settings": dict(donor.settings)}
        trial.lineage = [*donor.lineage, stage]
        trial.settings = explored(self._sweep, donor.settings, trial.number, epoch)
        try:
            recipe = self._recipe(trial)
        except RecipeError as error:
            self._refused(trial, error)
            return
        begin_from(self._folder.run_dir(donor), recipe, self._folder.run_dir(trial))
        self._tell(f"{before} copies {donor.name} after epoch {epoch} and goes on as {trial.name}")

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: trials are kept by who is told of them."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the trials are kept elsewhere, and as JSON."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""

"""The next trial: one that an earlier process left unfinished, or new settings.

A `Searcher` of Ray Tune whose state is the list of trials itself, so that a search goes on without reading anything but
JSON: settings that are drawn beforehand depend on the trial's number alone, and TPE on what is known of earlier trials.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from engine.errors import InputError, PlanError, RecipeError
from engine.search.definition import Sweep
from engine.search.settings import Settings, choices, drawn
from engine.search.trial import Trial
from engine.streams import stream_seed


class TrialQueue(Searcher):
    """Gives Ray Tune the configurations of trials: earlier ones first, in their order, then new ones.

    Args:
        sweep: what is searched.
        trials: what is known already; of those that have ended, ASHA alone hears again.
        total: how many trials there are to be in all.
        configuration: makes the configuration of a trial; raises RecipeError, PlanError and DataError.
        begun: told of every trial that is given away.
        refused: told of a trial whose settings make no training together, or one that never fits, and why.
    """

    def __init__(
        self,
        sweep: Sweep,
        trials: Mapping[int, Trial],
        total: int,
        configuration: Callable[[Trial], dict[str, Any]],
        begun: Callable[[Trial], None],
        refused: Callable[[Trial, InputError], None],
    ) -> None:
        super().__init__(metric=sweep.judged_by, mode=sweep.mode)
        self._sweep, self._trials, self._total = sweep, dict(trials), total
        over = ("failed",) if sweep.scheduler == "asha" else ("failed", "finished", "pruned")
        self._again = deque(sorted(number for number, trial in trials.items() if trial.status not in over))
        self._configuration, self._begun, self._refused = configuration, begun, refused
        self._in_flight: set[str] = set()
        self._number = 0
        self.of_tune: dict[str, Trial] = {}
        """Trials by Ray Tune's own names for them; a trial has a new one each time it is tried."""

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing: Ray Tune writes itself down, but a search never reads that."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Accept that Ray Tune says nothing new."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the next configuration; None while what still runs may be lost; or that there is none."""
        while (trial := self._next()) is not None:
            try:
                configuration = self._configuration(trial)
            except (RecipeError, PlanError) as error:
                self._refused(trial, error)
                continue
            self.of_tune[trial_id] = trial
            self._in_flight.add(trial_id)
            self._begun(trial)
            return configuration
        return None if self._in_flight else Searcher.FINISHED

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to do."""
        return not self._again and self._free() is None

    def try_again(self, trial: Trial) -> None:
        """Let a trial that was lost be the next one."""
        self._again.appendleft(trial.number)

    def _free(self) -> int | None:
        """Return the smallest number that no trial has; None where all have been drawn."""
        while self._number in self._trials:
            self._number += 1
        return self._number if self._number < self._total else None

    def _next(self) -> Trial | None:
        if self._again:
            return self._trials[self._again.popleft()]
        number = self._free()
        settings = self._new(number) if number is not None else None
        if number is None or settings is None:
            return None
        self._trials[number] = Trial(number, settings)
        return self._trials[number]

    def _new(self, number: int) -> Settings | None:
        if self._sweep.searcher == "tpe":
            if any(trial.status == "lost" for trial in self._trials.values()):
                # What would be learned from it is not known yet; the next start of the search knows more.
                return None
            return suggested(self._sweep, list(self._trials.values()), number)
        return drawn(self._sweep, number)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note that a trial has ended; how is kept by who is told of it."""
        self._in_flight.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the trials are kept elsewhere, and as JSON."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""


def suggested(sweep: Sweep, trials: Sequence[Trial], number: int) -> Settings:
    """Return the settings that Optuna's TPE (Bergstra et al. 2011) suggests after some trials.

    A pure function of its arguments, so a search that goes on suggests what it would have suggested.

    Raises:
        PlanError: Optuna is not installed.
    """
    optuna = _optuna()
    study, distributions = study_of(sweep, trials)
    study.sampler = optuna.samplers.TPESampler(
        seed=stream_seed(sweep.seed, "tpe", number) % 2**32, constant_liar=True, n_startup_trials=_random_trials(sweep)
    )
    found: dict[str, Any] = study.ask(distributions).params
    return found


def study_of(sweep: Sweep, trials: Sequence[Trial]) -> tuple[Any, dict[str, Any]]:
    """Return Optuna's view of trials, and the distributions of the searched fields."""
    optuna = _optuna()
    from ray.tune.search.optuna import OptunaSearch

    listed = {name: choices(sweep, name) for name in sweep.space}
    domains = {name: domain for name, domain in sweep.space.items() if listed[name] is None}
    distributions: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(values)
        for name, values in listed.items()
        if values is not None
    }
    if domains:
        distributions |= OptunaSearch.convert_search_space(domains)
    distributions = {name: distributions[name] for name in sweep.space}
    study = optuna.create_study(direction="minimize" if sweep.mode == "min" else "maximize")
    states = optuna.trial.TrialState
    for trial in trials:
        known: dict[str, Any] = {"state": states.RUNNING}
        value = trial.metrics.get(sweep.judged_by, math.nan)
        if trial.status == "finished" and math.isfinite(value):
            known = {"state": states.COMPLETE, "value": value}
        elif trial.status == "pruned" and math.isfinite(value):
            known = {"state": states.PRUNED, "intermediate_values": {trial.epochs: value}}
        elif trial.status in ("finished", "pruned", "failed", "lost"):
            known = {"state": states.FAIL}
        study.add_trial(optuna.trial.create_trial(params=dict(trial.settings), distributions=distributions, **known))
    return study, distributions


def importances(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, float]:
    """Return how much each field decides the metric, as Optuna measures it (PED-ANOVA); empty if none can tell."""
    finished = [
        trial
        for trial in trials
        if trial.status == "finished" and math.isfinite(trial.metrics.get(sweep.judged_by, math.nan))
    ]
    values = {trial.metrics[sweep.judged_by] for trial in finished}
    if sweep.searcher != "tpe" or len(finished) < 4 or len(values) < 2:
        return {}
    optuna = _optuna()
    study, _ = study_of(sweep, finished)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found


def _random_trials(sweep: Sweep) -> int:
    return max(4, min(10, sweep.num_samples // 3))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise PlanError(
            "searcher='tpe' is Optuna's: install it with `pip install 'local-learning[search]'`, or choose another one"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna

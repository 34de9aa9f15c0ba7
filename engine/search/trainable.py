"""One trial inside Ray Tune, and what it reports after every epoch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ray import tune
from typing_extensions import Self

from engine.checkpoints import newest_checkpoint
from engine.errors import RecipeError
from engine.recipes import plan_from_dict, recipe_from_dict
from engine.tasks import Metric
from engine.tracking import ENSEMBLE, Record, read_metrics
from engine.tracking.records import IMAGES_PER_SECOND, MEMORY_BYTES
from engine.training import Result, train

VALIDATION = "validation"
EPOCH = "epoch"

Report = Callable[[Mapping[str, float]], None]


def run_trial(config: Mapping[str, Any]) -> None:
    """Train a trial, or go on with it, and report to Ray Tune after every evaluation.

    What an earlier process has trained of it is reported first, so that the scheduler knows it again.

    Args:
        config: ``recipe`` and ``plan`` as JSON, ``run_dir``, the search's ``metric``, ``replay_only`` for a trial
            that has ended, and ``until_step`` for one that is to pause there.

    Raises:
        RecipeError: the metric is none of those that are measured.
    """
    folder = Path(config["run_dir"])
    reports = Reports(tune.report, config["metric"])
    for records in _recorded(folder, whole=config["replay_only"]):
        reports.take(records)
    if config["replay_only"]:
        return
    recipe = recipe_from_dict(json.loads(config["recipe"]))
    plan = plan_from_dict(json.loads(config["plan"]))
    console = _TrialConsole(reports)
    result = train(recipe, plan, folder, console=console, until_step=config["until_step"])
    reports.end(result, console.held)


def _recorded(folder: Path, *, whole: bool) -> list[list[Record]]:
    """Return what was measured up to the newest checkpoint, or of a run that has ended all, by evaluation."""
    if not (folder / "metrics.jsonl").is_file():
        return []
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    last = checkpoint.step if checkpoint is not None else 0
    by_step: dict[int, list[Record]] = {}
    for record in read_metrics(folder):
        if whole or record.step <= last:
            by_step.setdefault(record.step, []).append(record)
    return list(by_step.values())


class Reports:
    """Turns records of a run into reports of a trial.

    Args:
        report: takes the newest values: ``epoch``, scores such as ``validation/accuracy``, of several networks their
            mean, ``memory_bytes`` of the learner that holds most, and ``images_per_second``.
        metric: that has to be among them; none unless given.
    """

    def __init__(self, report: Report, metric: str | None = None) -> None:
        self._report = report
        self._metric = metric
        self._latest: dict[str, float] = {}
        self._memory: dict[str | None, float] = {}
        self._rates: dict[str | None, float] = {}

    def take(self, records: Sequence[Record]) -> None:
        """Take in what was measured; reports once for each evaluation."""
        if self._note(records):
            self._tell(max(record.epoch for record in records))

    def _note(self, records: Sequence[Record]) -> bool:
        scores: dict[str, list[float]] = {}
        for record in records:
            if record.name == MEMORY_BYTES:
                self._memory[record.learner] = record.value
            elif record.name == IMAGES_PER_SECOND:
                self._rates[record.learner] = record.value
            elif record.split == VALIDATION and record.learner != ENSEMBLE:
                scores.setdefault(f"{VALIDATION}/{record.name}", []).append(record.value)
        if not scores:
            return False
        self._latest |= {name: statistics.fmean(values) for name, values in scores.items()}
        if self._memory:
            self._latest[MEMORY_BYTES] = max(self._memory.values())
        if self._rates:
            self._latest[IMAGES_PER_SECOND] = min(self._rates.values())
        return True

    def _tell(self, epoch: int) -> None:
        if self._metric is not None and self._metric not in self._latest:
            raise RecipeError(
                f"metric={self._metric!r} is not measured; measured are {', '.join(sorted(self._latest))}"
            )
        self._report({EPOCH: epoch, **self._latest})

    def end(self, result: Result, records: Sequence[Record] = ()) -> None:
        """Report the last evaluation of a run that has finished, its exact memory and its median rate."""
        self._note(records)
        self._latest[MEMORY_BYTES] = max(result.peak_memory_bytes.values(), default=0)
        if result.images_per_second is not None:
            self._latest[IMAGES_PER_SECOND] = result.images_per_second
        self._tell(result.epochs)


class _TrialConsole:
    """The console of a trial: nobody looks at it, but it hears of every evaluation; log.txt keeps the rest.

    An evaluation is handed on with the next news: by then its checkpoint is saved, so a trial that is stopped because
    of it has one. The last is held until the run has ended, for a trial that was trained to its end is not stopped.

    Attributes:
        held: what was measured in the newest evaluation, if it is not handed on.
    """

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self.held: Sequence[Record] = ()

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, headline: Metric) -> None:
        """Do nothing."""

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        """Take in what was measured."""
        held, self.held = self.held, ()
        self._reports.take(held)
        if any(record.split == VALIDATION for record in records):
            self.held = records
        else:
            self._reports.take(records)

    def message(self, text: str) -> None:
        """Do nothing."""

    def finish(self, summary: Sequence[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

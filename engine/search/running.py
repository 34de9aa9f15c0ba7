"""How is one trial trained inside Ray Tune, and what does it tell the search after every epoch?"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ray import tune
from typing_extensions import Self

from engine.learners.checkpoints import newest_checkpoint
from engine.recipes import plan_from_dict, recipe_from_dict
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
        config: ``recipe`` and ``plan`` as JSON, ``run_dir``, and ``replay_only`` for a trial that has ended.
    """
    folder = Path(config["run_dir"])
    reports = Reports(tune.report)
    for records in _recorded(folder, whole=config["replay_only"]):
        reports.take(records)
    if config["replay_only"]:
        return
    recipe = recipe_from_dict(json.loads(config["recipe"]))
    plan = plan_from_dict(json.loads(config["plan"]))
    reports.end(train(recipe, plan, folder, console=_TrialConsole(reports)))


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
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._latest: dict[str, float] = {}
        self._memory: dict[str | None, float] = {}
        self._rates: dict[str | None, float] = {}
        self._reported = 0

    def take(self, records: Sequence[Record]) -> None:
        """Take in what was measured; reports once for each evaluation."""
        scores: dict[str, list[float]] = {}
        for record in records:
            if record.name == MEMORY_BYTES:
                self._memory[record.learner] = record.value
            elif record.name == IMAGES_PER_SECOND:
                self._rates[record.learner] = record.value
            elif record.split == VALIDATION and record.learner != ENSEMBLE:
                scores.setdefault(f"{VALIDATION}/{record.name}", []).append(record.value)
        if not scores:
            return
        self._latest |= {name: statistics.fmean(values) for name, values in scores.items()}
        if self._memory:
            self._latest[MEMORY_BYTES] = max(self._memory.values())
        if self._rates:
            self._latest[IMAGES_PER_SECOND] = min(self._rates.values())
        self._reported = max(record.epoch for record in records)
        self._report({EPOCH: self._reported, **self._latest})

    def end(self, result: Result) -> None:
        """Report the exact memory and the median rate of a run that has finished."""
        self._latest[MEMORY_BYTES] = max(result.peak_memory_bytes.values(), default=0)
        if result.images_per_second is not None:
            self._latest[IMAGES_PER_SECOND] = result.images_per_second
        self._report({EPOCH: result.epochs, **self._latest})


class _TrialConsole:
    """The console of a trial: nobody looks at it, but it hears of every evaluation; log.txt keeps the rest."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int) -> None:
        """Do nothing."""

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        """Take in what was measured."""
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

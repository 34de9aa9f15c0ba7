"""The record of a run: its folder, its metrics, what is said of it, and the by-products beside them.

It lasts as long as the command, however often a team is started anew in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from engine.errors import EngineError, RunError
from engine.methods import Network
from engine.reading import one_line
from engine.tasks import Metric
from engine.tracking import Console, MetricsLog, Record, read_metrics
from engine.tracking.metrics import JSONL_NAME
from engine.training.absences import Absences
from engine.training.by_products import ByProducts
from engine.training.faults import Faults
from engine.training.folder import RunFolder
from engine.training.mirror import Mirror
from engine.training.patience import DiskPatience
from engine.training.presence import Presence
from engine.training.reports import best_scores
from engine.training.result import BestScore, Result

SUMMARY_NAME = "summary.json"


class RunRecord:
    """What one command writes and says of a run.

    Args:
        folder: the run folder.
        console: where progress is shown.
        mirror: the folder's copy elsewhere, if there is one.
        headline: the score by which its networks are judged.
        started: when the command began, as `time.monotonic`.
        patience_seconds: as of `DiskPatience`.
    """

    def __init__(
        self,
        folder: RunFolder,
        console: Console,
        mirror: Mirror | None,
        headline: Metric,
        started: float,
        patience_seconds: float = 0.0,
    ) -> None:
        self.folder, self.console, self.headline, self.started = folder, console, headline, started
        self.by_products = ByProducts(folder.path, mirror, headline, self._warn)
        self.faults = Faults()
        self.absences = Absences()
        self.patience = DiskPatience(patience_seconds, self.by_products.warn)
        self.reached = 0
        """The last step that was reported."""
        self._presence = Presence(folder.path)
        self._metrics: MetricsLog | None = None

    def begin(self, step: int, is_scored: bool = True) -> None:
        """Begin to record what comes after ``step``; what was recorded of later steps is forgotten.

        Args:
            step: of the whole run.
            is_scored: False where what was recorded of the scores after ``step`` is forgotten, too: all are made again.

        Raises:
            RunError: metrics.jsonl is damaged, the folder is gone, or the patience with its disk is at an end.
        """
        self.reached = step
        self.absences.go_on_from(step)
        if self._metrics is not None:
            # What an earlier team has left there before the disk took no more.
            self.wait_for_metrics(lambda: False)
        self.patience.wait_for(JSONL_NAME, lambda: self._open(step, is_scored))
        if is_scored:
            self.by_products.open(step or None)
        else:
            # TensorBoard forgets whole steps only, so what stays of this one is told it again.
            self.by_products.open(step - 1)
            self.by_products.write([each for each in read_metrics(self.folder.path) if each.step == step])
        if self.faults.found:
            self.show_faults()

    def _open(self, step: int, is_scored: bool) -> None:
        # A folder that somebody has moved away must not be made anew.
        self.check_presence()
        self._metrics = MetricsLog(self.folder.path, step or None, is_scored)

    def write(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        """Record, and show, what was measured."""
        self.check_presence()
        self.reached = step
        self.faults.reached(step)
        try:
            self._write(records)
        except RunError as error:
            self.check_presence()
            self.patience.failed(JSONL_NAME, error)
        else:
            self.patience.succeeded(JSONL_NAME)
        self.by_products.write(records)
        self.console.update(step, epoch, records)

    def wait_for_metrics(self, is_hurried: Callable[[], bool]) -> None:
        """Wait until the disk has all metrics; as `DiskPatience.wait_for`."""
        self.patience.wait_for(JSONL_NAME, lambda: self._write([]), is_hurried)

    def _write(self, records: Sequence[Record]) -> None:
        assert self._metrics is not None
        self._metrics.write(records)

    def note_fault(self, cause: str, checkpoint: int) -> None:
        """Take note of what has ended a team that is to go on from the checkpoint of a step."""
        self.faults.add(cause, self.reached, checkpoint)

    def show_faults(self) -> None:
        """Show the faults so far, in TensorBoard alone: the record of a run is that of one without faults."""
        number = len(self.faults.found)
        self.by_products.write([Record(time.time(), 0, self.reached, None, "train", "faults", number)])
        self._show_causes()

    def _show_causes(self) -> None:
        self.by_products.write_text("team/train/faults", "\n".join(self.faults.describe()), self.reached)

    def say(self, text: str) -> None:
        """Tell the console and the log."""
        self.console.message(text)
        self.folder.log(text)

    def _warn(self, warning: str) -> None:
        self.console.message(warning)
        self.folder.log(f"warning: {warning}")

    def check_presence(self) -> None:
        """Raise RunError if the folder has been moved, deleted or replaced by another."""
        self._presence.check()

    def finish(self, title: str, choices: Mapping[str, Any] | None, scores: Mapping[str, float]) -> None:
        """Make what is made at the end; as `ByProducts.finish`."""
        assert self._metrics is not None
        if self.faults.found:
            # By now it is known what the last one has cost.
            self._show_causes()
            for line in self.faults.describe():
                self.folder.log(f"fault {line}")
        self.by_products.finish(self._metrics, title, choices, scores)

    def best_scores(self, networks: Mapping[str, Network], diverged: Collection[str]) -> dict[str, BestScore]:
        """Return the best scores that are recorded; as `engine.training.reports.best_scores`.

        They are no part of what was trained: where the records cannot be read, that is a warning.
        """
        found: dict[str, BestScore] = {}
        try:
            found = best_scores(read_metrics(self.folder.path), networks, diverged, self.headline)
        except Exception as error:
            self.by_products.warn(f"the best epoch is not known: {one_line(error)}")
        return found

    def end(self) -> None:
        """Close what `begin` has opened; after `finish` this does nothing."""
        self.by_products.close()
        if self._metrics is not None:
            # What comes here has failed already, and says so itself.
            with contextlib.suppress(Exception):
                self._metrics.close()

    def write_result(self, result: Result) -> None:
        """Write summary.json, the last file of a run: whoever reads it takes all the rest to be there."""
        self.check_presence()
        self.folder.write_json(SUMMARY_NAME, result.to_summary())

    def mirrored(self, result: Result) -> Result:
        """Send the mirror the end of a run; returns its result with what went wrong with that, too."""
        self.by_products.mirror_the_end()
        if len(self.by_products.warnings) == len(result.warnings):
            return result
        result = dataclasses.replace(result, warnings=tuple(self.by_products.warnings))
        with contextlib.suppress(EngineError, OSError):
            self.write_result(result)
        return result

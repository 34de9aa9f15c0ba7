"""By-products of a run: what it leaves beside its record, without harm where that fails.

metrics.jsonl, checkpoints and summary.json are the record. TensorBoard's copy, the Parquet copy, the picture and the
mirror are there for people and other programs: a training that has been paid for never ends for want of one of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.recipes.overrides import dotted_fields
from engine.tasks import Metric
from engine.tracking import MetricsLog, Record, TensorBoardLog, plot_curves, read_metrics, spared
from engine.training.mirror import Mirror

_TENSORBOARD = "TensorBoard's event file"


class ByProducts:
    """The by-products of one run.

    Args:
        folder: the run folder.
        mirror: its copy elsewhere, if there is one.
        headline: the score by which its networks are judged.
        tell: told each warning, once; may not raise.

    Attributes:
        warnings: what could not be made, and why; one line each.
    """

    def __init__(self, folder: Path, mirror: Mirror | None, headline: Metric, tell: Callable[[str], None]) -> None:
        self._folder, self._mirror, self._headline, self._tell = folder, mirror, headline, tell
        self._tensorboard: TensorBoardLog | None = None
        self.warnings: list[str] = []

    def open(self, resume_step: int | None) -> None:
        """Open TensorBoard's copy; as `TensorBoardLog`."""
        with spared(_TENSORBOARD, self.warn):
            self._tensorboard = TensorBoardLog(self._folder, resume_step)

    def write(self, records: Sequence[Record]) -> None:
        """Add records to TensorBoard's copy, which ends at the first that cannot be written."""
        if self._tensorboard is not None:
            log, self._tensorboard = self._tensorboard, None
            with spared(_TENSORBOARD, self.warn):
                log.write(records)
                self._tensorboard = log

    def write_text(self, tag: str, text: str, step: int) -> None:
        """Add text to TensorBoard's copy; as `write`."""
        if self._tensorboard is not None:
            log, self._tensorboard = self._tensorboard, None
            with spared(_TENSORBOARD, self.warn):
                log.write_text(tag, text, step)
                self._tensorboard = log

    def finish(
        self, metrics: MetricsLog, title: str, choices: Mapping[str, Any] | None, scores: Mapping[str, float]
    ) -> None:
        """Make what is made at the end of a run.

        Args:
            metrics: the record, which is closed.
            title: of the picture.
            choices: settings for TensorBoard's table of runs; None for a run that is not finished.
            scores: final numbers for it.
        """
        log, self._tensorboard = self._tensorboard, None
        if log is not None:
            with spared(_TENSORBOARD, self.warn), contextlib.closing(log):
                if choices is not None:
                    log.write_hparams(_hyperparameters(choices), scores)
        with spared("metrics.parquet", self.warn):
            metrics.close()
        with spared("curves.png", self.warn):
            plot_curves(read_metrics(self._folder), self._folder / "curves.png", title, self._headline)

    def close(self) -> None:
        """Close TensorBoard's copy after a failure, which is told anyway; after `finish` this does nothing."""
        log, self._tensorboard = self._tensorboard, None
        if log is not None:
            with contextlib.suppress(Exception):
                log.close()

    def mirror(self, step: int) -> None:
        """Bring the mirror up to date after a checkpoint."""
        if self._mirror is not None:
            with spared("the mirror", self.warn):
                self._note(self._mirror.update(step))

    def mirror_the_end(self) -> None:
        """Send the mirror what was written after the last checkpoint."""
        if self._mirror is not None:
            with spared("the mirror", self.warn):
                self._note(self._mirror.finish())

    def _note(self, warning: str | None) -> None:
        if warning is not None:
            self.warn(warning)

    def warn(self, text: str) -> None:
        """Say and keep a warning, unless it was said before."""
        if text not in self.warnings:
            self.warnings.append(text)
            self._tell(text)


def _hyperparameters(values: Mapping[str, Any]) -> dict[str, int | float | str | bool]:
    """Return dotted fields as TensorBoard takes them: no None, no lists."""
    given = {name: value for name, value in dotted_fields(values).items() if value is not None}
    return {name: value if isinstance(value, (int, float, str, bool)) else str(value) for name, value in given.items()}

"""How TensorBoard gets its copy of the numbers of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.tracking.records import Record

_SECONDS_BETWEEN_FLUSHES = 15


class TensorBoardLog:
    """Writes records as TensorBoard scalars into the run's folder.

    Args:
        folder: the run's folder; it holds the event files themselves, no subfolder.
        resume_step: the step that the run goes on from; TensorBoard then hides what an earlier attempt wrote for
            later steps. None starts from nothing and hides all that an earlier attempt wrote.
    """

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._last_step = 0 if resume_step is None else resume_step
        first_step = 0 if resume_step is None else resume_step + 1
        self._tags: set[str] = set()
        self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=_SECONDS_BETWEEN_FLUSHES)

    def write(self, records: Sequence[Record]) -> None:
        """Add one scalar for each record, tagged LEARNER/SPLIT/NAME, where the whole team is called `team`.

        Of a cohort these are, for instance, peer0/train/loss/mimicry, peer0/test/accuracy, ensemble/test/accuracy and,
        of all peers together, ensemble/test/kl_between_peers and ensemble/test/accuracy_gap.
        """
        for record in records:
            tag = f"{record.learner or 'team'}/{record.split}/{record.name}"
            self._writer.add_scalar(tag, float(record.value), record.step, walltime=record.time)
            self._tags.add(tag)
            self._last_step = max(self._last_step, record.step)

    def write_hparams(self, hparams: Mapping[str, float | str | bool], metrics: Mapping[str, float]) -> None:
        """Make the run a row of TensorBoard's HParams tab; call once, when the final numbers are known.

        Args:
            hparams: settings by name. Truth values and numbers that are not finite are shown as words.
            metrics: final numbers by name, also written as scalars of the last step, tagged with their name, unless
                there are scalars of that tag, of which the tab shows the last.
        """
        from torch.utils.tensorboard.summary import hparams as hparams_summaries

        shown = {name: _shown(value) for name, value in hparams.items()}
        # Not SummaryWriter.add_hparams: that opens a subfolder, which TensorBoard lists as a second run.
        writer = self._writer._get_file_writer()
        for summary in hparams_summaries(shown, dict(metrics)):
            writer.add_summary(summary)
        for name, value in metrics.items():
            if name not in self._tags:
                self._writer.add_scalar(name, float(value), self._last_step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is still held in memory and close the event file; a second call does nothing."""
        self._writer.close()


def _shown(value: float | str | bool) -> float | str:
    if isinstance(value, bool):
        return str(value).lower()  # Otherwise the tab would show 1 and 0.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # The tab cannot be served with such a number in it.
    return value

"""TensorBoard's copy of the numbers of a run."""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.tracking.records import Record

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

_FORMAT = "brain.Event:2"
_opened = itertools.count()


class TensorBoardLog:
    """Writes records as TensorBoard scalars into the run's folder.

    The event file is written here, in the thread that calls and through one open file: TensorBoard's own writer opens
    the file anew in a thread of its own, whose errors are printed as tracebacks and cannot be caught.

    Args:
        folder: the run's folder, which exists; it holds the event files themselves, no subfolder.
        resume_step: the step that the run goes on from; TensorBoard then hides what an earlier attempt wrote for
            later steps. None starts from nothing and hides all that an earlier attempt wrote.

    Raises:
        OSError: from every method, too: the file cannot be written.
    """

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        self._last_step = 0 if resume_step is None else resume_step
        first_step = 0 if resume_step is None else resume_step + 1
        self._tags: set[str] = set()
        # Names begin with the second, because TensorBoard reads event files in the order of their names.
        name = f"{int(time.time()):010d}.{_printable(socket.gethostname())}.{os.getpid()}.{next(_opened):06d}"
        self._file = (folder / f"events.out.tfevents.{name}").open("wb")
        self._records = RecordWriter(self._file)
        self._add(Event(file_version=_FORMAT), time.time())
        self._add(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)), time.time())
        self._file.flush()

    def write(self, records: Sequence[Record]) -> None:
        """Add one scalar for each record, tagged LEARNER/SPLIT/NAME, where the whole team is called `team`.

        Of a cohort these are, for instance, peer0/train/loss/mimicry, peer0/test/accuracy, ensemble/test/accuracy and,
        of all peers together, ensemble/test/kl_between_peers and ensemble/test/accuracy_gap.
        """
        for record in records:
            tag = f"{record.learner or 'team'}/{record.split}/{record.name}"
            self._add_scalar(tag, record.value, record.step, record.time)
            self._tags.add(tag)
            self._last_step = max(self._last_step, record.step)
        self._file.flush()

    def write_text(self, tag: str, text: str, step: int) -> None:
        """Add text, in Markdown, which TensorBoard shows in its Text tab under ``TAG/text_summary``."""
        from torch.utils.tensorboard.summary import text as text_summary

        self._add(self._event(step=step, summary=text_summary(_printable(tag), _printable(text))), time.time())
        self._file.flush()

    def write_hparams(self, hparams: Mapping[str, float | str | bool], metrics: Mapping[str, float]) -> None:
        """Make the run a row of TensorBoard's HParams tab; call once, when the final numbers are known.

        Args:
            hparams: settings by name. Truth values and numbers that are not finite are shown as words, and so are the
                bytes of file names that are no UTF-8.
            metrics: final numbers by name, also written as scalars of the last step, tagged with their name, unless
                there are scalars of that tag, of which the tab shows the last.
        """
        from torch.utils.tensorboard.summary import hparams as hparams_summaries

        shown = {_printable(name): _shown(value) for name, value in hparams.items()}
        for summary in hparams_summaries(shown, dict(metrics)):
            self._add(self._event(summary=summary), time.time())
        for name, value in metrics.items():
            if name not in self._tags:
                self._add_scalar(name, value, self._last_step, time.time())
        self._file.flush()

    def close(self) -> None:
        """Close the event file; a second call does nothing."""
        self._file.close()

    def _add_scalar(self, tag: str, value: float, step: int, when: float) -> None:
        values = [self._summary.Value(tag=_printable(tag), simple_value=float(value))]
        self._add(self._event(step=step, summary=self._summary(value=values)), when)

    def _add(self, event: Event, when: float) -> None:
        event.wall_time = when
        self._records.write(event.SerializeToString())


def _shown(value: float | str | bool) -> float | str:
    if isinstance(value, bool):
        return str(value).lower()  # Otherwise the tab would show 1 and 0.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # The tab cannot be served with such a number in it.
    return _printable(value) if isinstance(value, str) else value


def _printable(text: str) -> str:
    r"""Return text that UTF-8 can say: a byte of a file name that is none becomes an escape such as ``\udce9``."""
    return text.encode("utf-8", "backslashreplace").decode()

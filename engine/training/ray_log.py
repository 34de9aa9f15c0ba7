"""Ray's own log lines of a training: into ``ray.log`` of its run folder, never to the screen."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path


class _File(logging.FileHandler):
    """A file that is made with its first line, and that never stands in the way of the training."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave out a line that cannot be written."""


@contextlib.contextmanager
def ray_log(folder: Path) -> Iterator[None]:
    """Let what Ray logs in this process inside the block go to a file of a run folder, too."""
    handler = _File(folder / "ray.log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ray")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()

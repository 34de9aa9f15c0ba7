"""Recalibration of batch-norm statistics before networks are scored and deployed."""

from __future__ import annotations

from engine.data import Source
from engine.methods import Team
from engine.runtimes import Runtime


def recalibrate(runtime: Runtime, team: Team, source: Source) -> None:
    """Measure batch-norm statistics anew, for methods whose training leaves others behind.

    Always from the same training images, so that the same weights get the same statistics however often and whenever
    they are scored; training itself uses the statistics of each batch.
    """
    if team.recalibration is not None:
        for batch in source.recalibration_batches(team.recalibration_images):
            runtime.submit(team.recalibration, batch)

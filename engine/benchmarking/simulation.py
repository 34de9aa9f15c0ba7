"""A simulation of a device for each segment, from the measured times of the segments alone.

Nothing here was measured on several devices. Sending, which overlaps with computing, is not counted on either side, and
1F1B is given every benefit: stages of exactly equal time, and micro-batches as quick per image as whole batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.benchmarking.case_results import CaseResult

MICRO_BATCHES = (8, 32)


@dataclass(frozen=True)
class Simulated:
    """A network cut into K segments, with a device for each.

    Attributes:
        num_segments: K.
        step: seconds of the slowest segment, which is the step of a full pipeline without a bubble.
        times_end_to_end: how many times as fast as one device end to end.
        pipelines: by number of micro-batches M, how many times as fast as one device 1F1B is at best: K without its
            bubble, the share (K - 1) / (M + K - 1) of the time.
    """

    num_segments: int
    step: float
    times_end_to_end: float
    pipelines: dict[int, float]

    @property
    def against_pipelines(self) -> dict[int, float]:
        """How many times as fast local learning is as 1F1B, by number of micro-batches."""
        return {parts: self.times_end_to_end / times for parts, times in self.pipelines.items()}


def simulate(end_to_end: CaseResult, in_process: Sequence[CaseResult]) -> list[Simulated]:
    """Return what each K in process would be with a device for each segment.

    Args:
        end_to_end: on one device, with the threads of one worker.
        in_process: cases of this engine in process, whose learners' times are known one by one.
    """
    found = []
    whole = sum(end_to_end.stage_seconds.values())
    for row in in_process:
        k = row.case.num_segments
        if k is None or not row.busy:
            continue
        step = max(row.stage_seconds.values())
        found.append(Simulated(k, step, whole / step, {m: pipeline_speedup(k, m) for m in MICRO_BATCHES}))
    return sorted(found, key=lambda each: each.num_segments)


def pipeline_speedup(stages: int, micro_batches: int) -> float:
    """Return K M / (M + K - 1): how many times as fast as one device a synchronous pipeline is at best."""
    return stages * micro_batches / (micro_batches + stages - 1)

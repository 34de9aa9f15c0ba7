"""A simulation of a device for each segment, from the measured times of the segments and of the blocks alone.

Nothing here was measured on several devices. Sending, which overlaps with computing, is not counted on either side.
1F1B gets the cut that balances the times of single blocks on micro-batches of their real size, and for each stage the
sum of its blocks' times; no stage is timed as a whole. Stages are never of equal time, and small micro-batches are
rarely as quick per image as whole batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.benchmarking.case_results import CaseResult
from engine.benchmarking.stage_cuts import stage_bounds, stage_seconds

MICRO_BATCHES = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Simulated:
    """A network cut into K segments, with a device for each.

    Attributes:
        num_segments: K.
        step: measured seconds of the slowest segment, which is the step of a full pipeline without a bubble.
        times_end_to_end: how many times as fast as one device end to end.
        pipelines: by number of micro-batches M, how many times as fast as one device 1F1B is at the cut into K stages
            that balances the times of the blocks; empty where these could not be timed. See `pipeline_step`.
        pipeline_stages: by M, seconds of each stage of that cut on one micro-batch, sums of those of its blocks.
        pipeline_cuts: by M, the blocks, counted from 0, at which those stages begin, and the number of blocks.
    """

    num_segments: int
    step: float
    times_end_to_end: float
    pipelines: dict[int, float]
    pipeline_stages: dict[int, list[float]] = field(default_factory=dict)
    pipeline_cuts: dict[int, list[int]] = field(default_factory=dict)

    @property
    def against_pipelines(self) -> dict[int, float]:
        """How many times as fast local learning is as 1F1B, by number of micro-batches."""
        return {parts: self.times_end_to_end / times for parts, times in self.pipelines.items()}

    @property
    def best_micro_batches(self) -> int | None:
        """The number with which 1F1B is fastest; None where nothing is known of it."""
        return max(self.pipelines, key=lambda parts: self.pipelines[parts], default=None)


def simulate(
    end_to_end: CaseResult, in_process: Sequence[CaseResult], blocks: Mapping[int, Sequence[float]]
) -> list[Simulated]:
    """Return what each K in process would be with a device for each segment.

    Args:
        end_to_end: on one device, with the threads of one worker.
        in_process: cases of this engine in process, whose learners' times are known one by one.
        blocks: by number of micro-batches, seconds of each block on one of them, forward and backward; 1 is the whole
            batch. Without it nothing is said of pipelines.
    """
    found = []
    whole = sum(end_to_end.stage_seconds.values())
    for row in in_process:
        k = row.case.num_segments
        if k is None or not row.busy:
            continue
        step = max(row.stage_seconds.values())
        cuts = {parts: stage_bounds(blocks[parts], k) for parts in MICRO_BATCHES if parts in blocks}
        stages = {parts: stage_seconds(blocks[parts], bounds) for parts, bounds in cuts.items()}
        # Against the blocks of whole batches, which were timed in the same rounds: not against another hour's.
        times = {parts: sum(blocks[1]) / pipeline_step(seconds, parts) for parts, seconds in stages.items()}
        found.append(Simulated(k, step, whole / step, times, stages, cuts))
    return sorted(found, key=lambda each: each.num_segments)


def pipeline_step(stages: Sequence[float], micro_batches: int) -> float:
    """Return the seconds of a step of 1F1B with a device for each stage, without optimizer and sending.

    The first micro-batch goes through all stages, and the slowest one needs its time for each of the others. With
    stages of equal time t this is (M + K - 1) t (Huang et al. 2019, GPipe, section 2.3).

    Args:
        stages: seconds of each on one micro-batch, forward and backward.
        micro_batches: M.
    """
    return sum(stages) + (micro_batches - 1) * max(stages)

"""The pipeline schedules of torch.distributed.pipelining that are compared with, and where their stages lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PipelineFamily = Literal["gpipe", "1f1b", "interleaved", "zero_bubble"]


@dataclass(frozen=True)
class PipelineSchedule:
    """One schedule.

    Attributes:
        family: of its kind the fastest is shown.
        torch_class: its name in torch.distributed.pipelining.
        title: in words.
        stages_per_worker: 1 or more.
        takes_list: whether the class takes a list of stages, even of one.
        in_v: whether stages go down the workers and back up, so that the first worker has the last stage; else they go
            round and round.
    """

    family: PipelineFamily
    torch_class: str
    title: str
    stages_per_worker: int = 1
    takes_list: bool = False
    in_v: bool = False

    def stages_of(self, rank: int, workers: int) -> list[int]:
        """Return the stages of a worker, of those numbered from 0 in the order of the network."""
        rounds = range(self.stages_per_worker)
        if self.in_v:
            return [turn * workers + (workers - 1 - rank if turn % 2 else rank) for turn in rounds]
        return [turn * workers + rank for turn in rounds]


SCHEDULES: dict[str, PipelineSchedule] = {
    "gpipe": PipelineSchedule("gpipe", "ScheduleGPipe", "GPipe"),
    "1f1b": PipelineSchedule("1f1b", "Schedule1F1B", "1F1B"),
    "interleaved_1f1b": PipelineSchedule("interleaved", "ScheduleInterleaved1F1B", "interleaved 1F1B", 2, True),
    "looped_bfs": PipelineSchedule("interleaved", "ScheduleLoopedBFS", "looped BFS", 2, True),
    "zero_bubble": PipelineSchedule("zero_bubble", "ScheduleInterleavedZeroBubble", "zero bubble", 1, True),
    "interleaved_zero_bubble": PipelineSchedule(
        "zero_bubble", "ScheduleInterleavedZeroBubble", "interleaved zero bubble", 2, True
    ),
    "zbv": PipelineSchedule("zero_bubble", "ScheduleZBVZeroBubble", "ZBV zero bubble", 2, True, True),
    "dual_pipe_v": PipelineSchedule("zero_bubble", "ScheduleDualPipeV", "DualPipeV", 2, True, True),
}
"""By the word for ``schedule`` in the settings of a case."""

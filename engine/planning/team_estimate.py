"""The estimate of one team: bytes by device, messages, and the modelled step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from engine.planning.sizes import LearnerSize
from engine.program import BATCH
from engine.runtimes.keeping import bytes_kept_on_links


@dataclass(frozen=True)
class TeamEstimate:
    """A team with one number of segments.

    Attributes:
        num_segments: K; None for a method that does not cut.
        cuts: the rule, or the names of the blocks, that it is cut by.
        sizes: of its learners.
        groups: names of the learners on each device.
        seconds: modelled, from one step to the next in a full pipeline.
        messages: bytes of each message of a step but the batch, by name.
        givers: which learner gives each of them.
        batch: bytes of the batch's message.
        window: steps in flight at once.
        at_work: who makes each call of a step, and which others are in the middle of theirs.
        in_process: whether all learners take turns in one process, on one device; else each is an actor.
    """

    num_segments: int | None
    cuts: str
    sizes: tuple[LearnerSize, ...]
    groups: tuple[tuple[str, ...], ...]
    seconds: float
    messages: dict[str, int]
    givers: dict[str, str]
    batch: int
    window: int
    at_work: tuple[tuple[str, frozenset[str]], ...]
    in_process: bool = False

    @property
    def device_bytes(self) -> int:
        """The most that a device needs: its learners as actors, all of them at work."""
        by_name = {size.name: size for size in self.sizes}
        return max(sum(by_name[name].peak for name in group) for group in self.groups)

    @property
    def in_turn_bytes(self) -> int:
        """What one device needs for all learners in turn, in one process.

        Peers see a batch before one of them learns from it, so while one goes backward the others keep their graphs.
        """
        by_name = {size.name: size for size in self.sizes}
        return sum(size.lasting for size in self.sizes) + max(
            by_name[own].transient + sum(by_name[other].body_activations for other in others)
            for own, others in self.at_work
        )

    @property
    def needed(self) -> int:
        """The most that a device needs where the team lives; actors that share a device do not take turns."""
        return self.in_turn_bytes if self.in_process else self.device_bytes

    @property
    def total_seconds(self) -> float:
        """Modelled work of a step, on one device."""
        return sum(size.seconds for size in self.sizes)

    @property
    def efficiency(self) -> float:
        """Share of the time that devices are at work, 0 to 1."""
        return self.total_seconds / (len(self.groups) * self.seconds)

    @property
    def parameter_overhead(self) -> float:
        """Parameters of auxiliary networks over those of the bodies."""
        auxiliary = sum(size.auxiliary_parameters for size in self.sizes)
        return auxiliary / max(sum(size.parameters for size in self.sizes) - auxiliary, 1)

    @property
    def mac_overhead(self) -> float:
        """Multiply-accumulates of auxiliary networks over those of the bodies, forward."""
        return sum(size.auxiliary_macs for size in self.sizes) / max(sum(size.macs for size in self.sizes), 1)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the messages of all steps in flight."""
        return self.window * (self.batch + sum(self.messages.values()))

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of the driver's memory for snapshots: the newest, and the one before until that is whole.

        What knowledge stores have changed since the newest checkpoint comes to it.
        """
        return 2 * sum(size.lasting for size in self.sizes)

    @property
    def kept_bytes(self) -> int:
        """Most bytes that a team on direct links keeps for a learner that is lost and comes back alone, in all.

        Batches in the driver's memory, messages in that of the learners; none where the team comes back instead,
        because the steps in flight have no room.
        """
        return bytes_kept_on_links(self.batch + sum(self.messages.values()), self.window)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        learners = [
            {**dataclasses.asdict(size), "peak": size.peak, "time_share": size.seconds / self.total_seconds}
            for size in self.sizes
        ]
        return {
            "num_segments": self.num_segments,
            "cuts": self.cuts,
            "learners": learners,
            "devices": [list(group) for group in self.groups],
            "device_bytes": self.device_bytes,
            "in_turn_bytes": self.in_turn_bytes,
            "needed": self.needed,
            "messages": {BATCH: self.batch, **self.messages},
            "window": self.window,
            "in_flight_bytes": self.in_flight_bytes,
            "snapshot_bytes": self.snapshot_bytes,
            "kept_bytes": self.kept_bytes,
            "parameter_overhead": self.parameter_overhead,
            "mac_overhead": self.mac_overhead,
            "efficiency": self.efficiency,
            "modelled_step_seconds": self.seconds,
        }

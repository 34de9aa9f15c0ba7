"""How much is kept for a learner that is lost and comes back alone, whichever way messages travel.

Arithmetic that planning and runtimes have in common.
"""

from __future__ import annotations

MOST_BYTES_ON_LINKS = 256 * 2**20
"""Of messages and batches that a team on direct links keeps, in the memory of its learners and of the driver."""

WINDOW_SHARE = 0.25
"""Of what is kept at most, that the steps in flight may take."""

ASKING_SHARE = 2 * WINDOW_SHARE
"""Of what is kept at most, after which states are asked for, whatever they cost: the answer comes when the steps in
flight are done, and until then all is kept."""


def steps_before_full(most_bytes: int, step_bytes: int) -> int:
    """Return how many steps may be in flight.

    Args:
        most_bytes: that are kept.
        step_bytes: of all messages of a step, the batch among them.
    """
    return int(WINDOW_SHARE * most_bytes / max(1, step_bytes))

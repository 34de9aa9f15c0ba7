"""How much is kept for a learner that is lost and comes back alone, whichever way messages travel.

Arithmetic that planning and runtimes have in common.
"""

from __future__ import annotations

MOST_BYTES_ON_LINKS = 256 * 2**20
"""Of messages and batches that a team on direct links keeps, in the memory of its learners and of the driver."""

SOON_FULL = 0.25
"""Of what is kept at most, after which states are asked for: their answers come late, when two more may have been."""


def steps_before_full(most_bytes: int, step_bytes: int) -> int:
    """Return after how many steps states are asked for.

    Args:
        most_bytes: that are kept.
        step_bytes: of all messages of a step, the batch among them.
    """
    return int(SOON_FULL * most_bytes / max(1, step_bytes))

"""Bounds of what is kept for a learner that is lost and comes back alone, whichever way messages travel.

Arithmetic that planning and runtimes have in common.
"""

from __future__ import annotations

import math

LEAST_BYTES_ON_LINKS = 256 * 2**20
"""Of messages and batches that a team on direct links may keep, in the memory of its learners and of the driver."""

MOST_BYTES_ON_LINKS = 2 * 2**30
"""That it may keep where steps are large: then, as many as the steps in flight need."""

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


def bytes_kept_on_links(step_bytes: int, steps_in_flight: int) -> int:
    """Return how many bytes a team on direct links may keep; 0 where the steps in flight would have no room in any.

    Args:
        step_bytes: of all messages of a training step, the batch among them. What an evaluation gives may be more, and
            is then let go before it is over: who is lost in it comes back with the team.
        steps_in_flight: of the team.
    """
    needed = math.ceil(steps_in_flight * step_bytes / WINDOW_SHARE)
    return max(LEAST_BYTES_ON_LINKS, needed) if needed <= MOST_BYTES_ON_LINKS else 0

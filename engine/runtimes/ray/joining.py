"""How do the replicas of a learner find one another?

Through torch.distributed, because they add up numbers in the middle of a phase: batch norms in the forward pass,
gradients before the optimizer's step.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.runtimes.ray.actors import LearnerActors
from engine.runtimes.ray.meeting_place import Place


def join_replicas(actors: LearnerActors, learners: Mapping[str, Sequence[str]], gpus: float) -> None:
    """Let the replicas of each learner find one another.

    Args:
        actors: of all replicas.
        learners: names of the replicas of each learner, in their order.
        gpus: that each actor reserves.

    Raises:
        LearnerError: a replica did not come.
    """
    # Two replicas on one GPU are more than NCCL allows.
    backend = "nccl" if gpus >= 1 else "gloo"
    folder = Path(tempfile.mkdtemp(prefix="replicas-"))
    try:
        waiting = {}
        for number, names in enumerate(learners.values()):
            nodes = {actors.places[name]["node"] for name in names}
            meeting = str(folder / str(number))
            if len(nodes) > 1:
                meeting = f"{actors.places[names[0]]['address']}:{_free_port()}"
            for index, name in enumerate(names):
                waiting[name] = actors[name].join.remote(Place(index, len(names), meeting, backend))
        actors.fetch_all(waiting)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("", 0))
        return int(taken.getsockname()[1])

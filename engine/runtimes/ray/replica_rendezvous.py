"""Rendezvous of the replicas of a learner.

Through torch.distributed, because they add up numbers in the middle of a phase: batch norms in the forward pass,
gradients before the optimizer's step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.runtimes.ray.actor_team import LearnerActors, nodes_of
from engine.runtimes.ray.process_groups import LOOPBACK, Place


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
    alone = len(nodes_of(actors)) == 1
    addresses = {name: LOOPBACK if alone else actors.places[name]["address"] for name in actors}
    firsts = [names[0] for names in learners.values()]
    ports = actors.fetch_all({name: actors[name].listen_for_replicas.remote(addresses[name]) for name in firsts})
    waiting = {}
    for first, *others in learners.values():
        names = (first, *others)
        for index, name in enumerate(names):
            place = Place(index, len(names), addresses[first], ports[first], addresses[name], backend)
            waiting[name] = actors[name].join.remote(place)
    actors.fetch_all(waiting)

"""Records: what one row of metrics holds, and which names the rest of the engine knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TRAIN = "train"
LEARNING_RATE = "learning_rate"
IMAGES_PER_SECOND = "images_per_second"
WAITING_SHARE = "waiting_share"
MEMORY_BYTES = "memory_bytes"
LOSS_PREFIX = "loss/"
LOSS_TOTAL = "loss/total"

ENSEMBLE = "ensemble"
ACCURACY_GAP = "accuracy_gap"
KL_BETWEEN_PEERS = "kl_between_peers"
DISAGREEMENT = "disagreement"


@dataclass(frozen=True, slots=True)
class Record:
    """One measured number: a row of metrics.jsonl and of metrics.parquet.

    Any name may be recorded; the names above are the ones that the console and the figures show.

    Attributes:
        time: when it was measured, in unix seconds.
        epoch: the epoch it belongs to.
        step: how many steps of the whole run were finished, so the first step is 1.
        learner: whose number it is: a learner's; in an evaluation of several networks also that of one of them, such
            as "peer0", or of "ensemble", which is all of them together; None for the whole team, such as the score
            of the only network.
        split: which images it was measured on: "train", "validation" or "test".
        name: what was measured, such as "loss/total" or "accuracy".
        value: the number. Accuracies and other shares are in [0, 1], memory in bytes, losses and divergences in nats;
            NaN and infinity are allowed.
    """

    time: float
    epoch: int
    step: int
    learner: str | None
    split: str
    name: str
    value: float


def learners_by_network(names: Iterable[str]) -> dict[str, list[str]]:
    """The learners of each network in order, networks by first appearance; the ensemble is none.

    Learners of a peer that is cut into segments are called PEER_SEGMENT. All others stand for themselves: a whole
    peer, and the segments of a team that trains one network only.
    """
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if name != ENSEMBLE:
            found.setdefault(name.partition("_")[0], []).append(name)
    # The name of a network that is cut comes with its evaluations; it is no learner.
    return {network: [name for name in parts if name != network] or parts for network, parts in found.items()}

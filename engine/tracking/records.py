"""What one row of metrics holds, and which names the rest of the engine knows."""

from __future__ import annotations

from dataclasses import dataclass

TRAIN = "train"
ACCURACY = "accuracy"
LEARNING_RATE = "learning_rate"
IMAGES_PER_SECOND = "images_per_second"
WAITING_SHARE = "waiting_share"
MEMORY_BYTES = "memory_bytes"
LOSS_PREFIX = "loss/"
LOSS_TOTAL = "loss/total"


@dataclass(frozen=True, slots=True)
class Record:
    """One measured number: a row of metrics.jsonl and of metrics.parquet.

    Any name may be recorded; the names above are the ones that the console and the figures show.

    Attributes:
        time: when it was measured, in unix seconds.
        epoch: the epoch it belongs to.
        step: how many steps of the whole run were finished, so the first step is 1.
        learner: who measured it; None for the whole team, such as the accuracy of the deployed network.
        split: which images it was measured on: "train", "validation" or "test".
        name: what was measured, such as "loss/total" or "accuracy".
        value: the number. Accuracies and shares are in [0, 1], memory in bytes; NaN and infinity are allowed.
    """

    time: float
    epoch: int
    step: int
    learner: str | None
    split: str
    name: str
    value: float

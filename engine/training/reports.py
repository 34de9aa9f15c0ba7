"""Handles what learners answer, in the order of the questions, while later steps are already in flight."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from engine.errors import EngineError
from engine.methods import Network
from engine.runtimes import Answer, Runtime
from engine.tasks import Metric
from engine.tracking import Record
from engine.tracking.records import TRAIN
from engine.tracking.scores import best_first
from engine.training.result import BestScore

# Questions whose answers may be outstanding: one is being computed while the next is asked.
_OUTSTANDING = 2


class Questions:
    """Asks learners, and hands on their answers later, so that asking never stops a pipeline."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: deque[tuple[Answer, Callable[[dict[str, Any]], None]]] = deque()

    def ask(self, question: str, handle: Callable[[dict[str, Any]], None]) -> None:
        """Ask all learners at this place in their order; ``handle`` gets the answers by learner."""
        self._waiting.append((self._runtime.ask(question), handle))
        while len(self._waiting) > _OUTSTANDING:
            self._handle_oldest()

    def _handle_oldest(self) -> None:
        answer, handle = self._waiting.popleft()
        handle(answer.result())

    def finish(self) -> None:
        """Handle all that is outstanding."""
        while self._waiting:
            self._handle_oldest()

    def salvage(self) -> None:
        """After a failure, handle what was answered before it: a checkpoint may be among them."""
        try:
            self.finish()
        except (EngineError, OSError):
            self._waiting.clear()


class Progress:
    """Turns answers into records, and keeps what the summary needs."""

    def __init__(self, emit: Callable[[int, int, Sequence[Record]], None]) -> None:
        self._emit = emit
        self._rates: list[float] = []
        self._waiting: dict[str, list[float]] = {}
        self.latest: dict[str, float] = {}

    def metrics(self, epoch: int, step: int) -> Callable[[dict[str, Any]], None]:
        """Return what handles the learners' metrics of the steps that end with ``step``."""

        def handle(answers: dict[str, Any]) -> None:
            now = time.time()
            records = [
                Record(now, epoch, step, learner, "train", name, value)
                for learner, values in answers.items()
                for name, value in values.items()
            ]
            rates = [values["images_per_second"] for values in answers.values() if "images_per_second" in values]
            if rates:
                # The slowest learner sets the pace of the team.
                self._rates.append(min(rates))
                records.append(Record(now, epoch, step, None, "train", "images_per_second", min(rates)))
            for learner, values in answers.items():
                if "waiting_share" in values:
                    self._waiting.setdefault(learner, []).append(values["waiting_share"])
            self._emit(step, epoch, records)

        return handle

    def score(self, epoch: int, step: int, split: str) -> Callable[[dict[str, Any]], None]:
        """Return what handles the score of one split after ``step``."""

        def handle(answers: dict[str, Any]) -> None:
            now = time.time()
            records = []
            scores = scores_by_network(answers)
            for network, values in scores.items():
                for name, value in values.items():
                    records.append(Record(now, epoch, step, network, split, name, value))
                    self.latest[score_name(network, split, name)] = value
            self._emit(step, epoch, records)

        return handle

    def images_per_second(self) -> float | None:
        """Return the median rate of the team, evaluation left out; the first report holds the warm-up."""
        rates = self._rates[1:] or self._rates
        return statistics.median(rates) if rates else None

    def step_seconds(self, batch_size: int) -> float | None:
        """Return how long a step of so many images took when it was last reported; None before that."""
        return batch_size / self._rates[-1] if self._rates and self._rates[-1] > 0.0 else None

    def waiting_shares(self) -> dict[str, float]:
        """Return the median share of its time that each learner waited."""
        return {learner: statistics.median(values[1:] or values) for learner, values in self._waiting.items()}


def mean_score(
    scores: Mapping[str, float],
    networks: Mapping[str, Network],
    diverged: Collection[str],
    headline: Metric,
    split: str = "test",
) -> float | None:
    """Return the mean headline score of the networks that no learner has left; None if it is not known.

    Args:
        scores: of all networks, by their full names, such as ``peer0/test/accuracy``.
        networks: of the team.
        diverged: learners that have diverged and left their cohort.
        headline: which score.
        split: on which images.
    """
    names = [name for name, network in networks.items() if not set(network.learners) & set(diverged)]
    wanted = [score_name(name if len(networks) > 1 else None, split, headline.name) for name in names]
    known = [scores[name] for name in wanted if name in scores]
    return statistics.fmean(known) if known else None


def best_scores(
    records: Iterable[Record], networks: Mapping[str, Network], diverged: Collection[str], headline: Metric
) -> dict[str, BestScore]:
    """Return by split the best of the mean headline scores, as `mean_score`, that follow from the records of a run.

    Of equal scores that of the last epoch is the best; those that are not finite are left out.

    Args:
        records: of a run, each step once.
        networks: of the team.
        diverged: learners that have diverged and left their cohort, whose networks count in no epoch.
        headline: which score.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for record in records:
        if record.split != TRAIN and record.name == headline.name:
            scores = found.setdefault(record.split, {}).setdefault(record.epoch, {})
            scores[score_name(record.learner, record.split, record.name)] = record.value
    best = {}
    for split, epochs in found.items():
        means = {
            epoch: mean_score(epochs[epoch], networks, diverged, headline, split)
            for epoch in sorted(epochs, reverse=True)
        }
        known = {epoch: mean for epoch, mean in means.items() if mean is not None and math.isfinite(mean)}
        for epoch in best_first(headline, known)[:1]:
            best[split] = BestScore(known[epoch], epoch, is_last=epoch == max(epochs))
    return best


def scores_by_network(answers: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str | None, dict[str, float]]:
    """Return what learners answered to ``score``, by network; the only network of a team is None."""
    scores = {network: values for found in answers.values() for network, values in found.items()}
    named = {None if len(scores) == 1 else network: values for network, values in scores.items()}
    return {network: {name: float(value) for name, value in values.items()} for network, values in named.items()}


def score_name(network: str | None, split: str, name: str) -> str:
    """Return the name of a score in the results, such as ``test/accuracy`` or ``peer0/test/accuracy``."""
    return f"{split}/{name}" if network is None else f"{network}/{split}/{name}"

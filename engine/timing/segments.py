"""Segments of a network, timed on this machine as the learners that train them."""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.data import Batch
from engine.errors import LearnerError
from engine.learners import Learner, Role
from engine.learners.numerics import DTYPES
from engine.tasks import task_of
from engine.timing.search import Place
from engine.timing.subject import OUT_OF_MEMORY, Subject, is_out_of_memory

_STEPS_PER_EPOCH = 1_000_000
# Steps of a small network are so short that more of them cost nothing, and say more.
_MOST_ROUNDS, _SECONDS_OF_SHORT_STEPS = 15, 0.3


class TimedSegments:
    """Times the steps of learners that hold one segment each: ``forward`` and ``update``, as in a training.

    Each is timed alone, as if its device had nothing else to do. Features that come from the segment before are random
    numbers, and the time that they travel is not counted.

    Args:
        subject: whose segments are timed.
        num_segments: K.
        rows: images in the batch.
    """

    def __init__(self, subject: Subject, num_segments: int, rows: int) -> None:
        self._subject, self._count, self._rows = subject, num_segments, rows

    def __call__(self, places: Sequence[Place], rounds: int) -> dict[Place, float]:
        """Return the median seconds of a step of each segment; infinite where the device has too little memory.

        All are timed in turn in every round, after one that does not count.

        Raises:
            LearnerError: a segment fails, as it would in a training.

        Args:
            places: part, first unit and the unit after the last of each segment.
            rounds: how often, at least; short steps are timed more often.
        """
        with self._subject.prepared():
            steps: dict[Place, _Step] = {}
            first = dict.fromkeys(places, math.inf)
            for place in places:
                with contextlib.suppress(*OUT_OF_MEMORY):
                    steps[place] = self._step_of(place)
                    first[place] = self._seconds(steps[place])
            warm = {place: self._seconds(step) for place, step in steps.items() if math.isfinite(first[place])}
            taken = {place: [seconds] for place, seconds in warm.items()}
            started, enough = time.perf_counter(), _SECONDS_OF_SHORT_STEPS * len(warm)
            for done in range(1, max(rounds, _MOST_ROUNDS)):
                if done >= rounds and time.perf_counter() - started > enough:
                    break
                for place in warm:
                    taken[place].append(self._seconds(steps[place]))
        return {place: statistics.median(taken[place]) if place in taken else math.inf for place in places}

    def _seconds(self, step: _Step) -> float:
        try:
            return self._subject.seconds(step)
        except LearnerError as error:
            if is_out_of_memory(error):
                return math.inf
            raise

    def _step_of(self, place: Place) -> _Step:
        part, start, stop = place
        subject = self._subject
        segment = subject.segment(part, self._count, start, stop)
        role = Role("network", subject.recipe.seed, segment.name, () if segment.is_last else ("features",))
        learner = Learner(
            segment.name,
            role,
            # Of its own: a learner leaves hooks on its blocks.
            copy.deepcopy(subject.network[segment.start : segment.stop]),
            subject.objective(segment),
            subject.recipe,
            subject.facts,
            _STEPS_PER_EPOCH,
            subject.device,
        )
        features = {}
        if start:
            dtype = DTYPES[subject.recipe.numerics.precision]
            features["features"] = subject.placed(torch.randn(self._rows, *subject.shapes[start - 1])).to(dtype)
        return _Step(learner, self._batch(), features)

    def _batch(self) -> Batch:
        recipe, facts, rows = self._subject.recipe, self._subject.facts, self._rows
        task = task_of(recipe, facts)
        labels = task.zero_labels(rows, torch.device("cpu")).numpy()
        if task.num_classes is not None:
            # Of several classes, as losses that compare images expect.
            labels = (np.arange(rows) % task.num_classes).astype(labels.dtype)
        images = torch.randint(0, 256, (rows, *facts.image_shape), dtype=torch.uint8).numpy()
        return Batch(images, labels, np.arange(rows), "train", 0, 1)


class _Step:
    """One step of a learner, again and again with the same batch."""

    def __init__(self, learner: Learner, batch: Batch, features: dict[str, Tensor]) -> None:
        self._learner, self._batch, self._features = learner, batch, features

    def __call__(self) -> None:
        """Take the step."""
        self._learner.call("forward", self._batch, self._features)
        self._learner.call("update", None, {})

"""Faults: to whom, when and how; and random lists of them that a seed gives again."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

KILL, STOP, PAUSE, NODE = "SIGKILL", "SIGSTOP", "SIGSTOP then SIGCONT", "end of the node"
CUT, FLIP = "cut off", "a flipped byte"
FULL, FAILING = "ENOSPC", "EIO"
KINDS = (KILL, STOP, PAUSE, NODE, CUT, FLIP, FULL, FAILING)
_OF_PROCESSES_AND_DISKS = (KILL, STOP, PAUSE, CUT, FLIP, FULL, FAILING)

DRIVER, RAYLET, GCS, DISK = "driver", "raylet", "gcs_server", "disk"
FILES = ("MANIFEST.json", "state.json", "tensors", "knowledge")
"""Classes of the files of a checkpoint."""

BUILDING, RECOVERING = "while building", "while recovering"
BEFORE_TAKING, AFTER_FORWARD = "before taking", "after forward"
BETWEEN, AFTER_UPDATE, SENDING = "between forward and update", "after update", "while sending"
CHECKPOINT, EVALUATION, SUBMITTING = "while a checkpoint is written", "in evaluation", "while a step is submitted"
OF_STEPS = (BEFORE_TAKING, AFTER_FORWARD, BETWEEN, AFTER_UPDATE)
"""Phases that every step of every learner has."""

STEPS_PER_EPOCH, EPOCHS = 4, 30
STEPS = STEPS_PER_EPOCH * EPOCHS
CHECKPOINT_EVERY, EVALUATE_EVERY_EPOCHS = 10, 10
_EVALUATIONS = range(STEPS_PER_EPOCH * EVALUATE_EVERY_EPOCHS, STEPS + 1, STEPS_PER_EPOCH * EVALUATE_EVERY_EPOCHS)
_PAUSE_SECONDS, _BAD_DISK_SECONDS = 1.5, 3.0

FIELDS = (
    *("data.train_limit=44", "data.test_limit=20", "data.batch_size=12", f"epochs={EPOCHS}", "numerics.threads=1"),
    *("plan.report_every_steps=1", f"plan.evaluate_every_epochs={EVALUATE_EVERY_EPOCHS}"),
    *(f"plan.checkpoint_every_steps={CHECKPOINT_EVERY}", "plan.recovery.stall_seconds=5"),
    *("plan.start_timeout_seconds=60", "plan.recovery.wait_seconds=180"),
)

LEARNERS = {
    "infopro_digits": ("segment0", "segment1"),
    "greedy_digits": ("segment0", "segment1"),
    "dml_digits": ("peer0", "peer1"),
    "end_to_end_digits": ("segment0",),
    "mkf_digits": ("network",),
}
SENDERS = {
    "infopro_digits": ("segment0",),
    "greedy_digits": ("segment0",),
    "dml_digits": ("peer0", "peer1"),
    "end_to_end_digits": (),
    "mkf_digits": (),
}
"""The learners that give others something in every step."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        victim: a learner, ``driver``, ``raylet``, ``gcs_server``, a class of files of a checkpoint, or ``disk``.
        kind: what is done to it, or to the node on which it lives. What happens to a file is followed by the driver's
            SIGKILL, or nobody would read it.
        phase: in which it happens.
        step: of the whole run, from 1 on; 0 where the phase belongs to no step.
        at: the process that comes into this phase: a learner, or ``driver``.
        seconds: how long a pause, or a disk that takes nothing, lasts.
    """

    victim: str
    kind: str
    phase: str
    step: int
    at: str
    seconds: float = 0.0

    def __str__(self) -> str:
        of_step = f" of step {self.step}" if self.step else ""
        where = f" {self.phase}{of_step}"
        return f"{self.kind} of {self.victim}{where}" + (f", at {self.at}" if self.at != self.victim else "")


@dataclass(frozen=True)
class Case:
    """One training and the faults that come in it.

    Attributes:
        recipe: name of a recipe.
        transport: ``direct`` or ``object_store``.
        faults: in no order.
        fields: of the recipe and the plan, beside the transport.
    """

    recipe: str
    transport: str
    faults: tuple[Fault, ...]
    fields: tuple[str, ...] = FIELDS

    def words(self) -> list[str]:
        """Return what the command line says after ``train``."""
        return [self.recipe, *self.fields, f"plan.transport={self.transport}"]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dataclasses.asdict(self)


def learner_fault(
    victim: str, kind: str, phase: str, step: int, at: str | None = None, seconds: float = _PAUSE_SECONDS
) -> Fault:
    """Return a signal to a learner, sent by itself unless another process is to be in the phase; or its node's end."""
    at = at or (DRIVER if phase == CHECKPOINT else victim)
    return Fault(victim, kind, phase, step, at, seconds if kind == PAUSE else 0.0)


def process_fault(victim: str, kind: str, phase: str, step: int, at: str = DRIVER) -> Fault:
    """Return a signal to the driver or a process of Ray, sent when the driver, or a learner, is in a phase."""
    return Fault(victim, kind, phase, step, at, _PAUSE_SECONDS if kind == PAUSE else 0.0)


def file_fault(file: str, kind: str, step: int) -> Fault:
    """Return damage to a file of the checkpoint of a step."""
    return Fault(file, kind, CHECKPOINT, step, DRIVER)


def disk_fault(kind: str, step: int, seconds: float = _BAD_DISK_SECONDS) -> Fault:
    """Return a disk that takes nothing for a while, from the checkpoint of a step on."""
    return Fault(DISK, kind, CHECKPOINT, step, DRIVER, seconds)


def draw_case(seed: int, index: int) -> Case:
    """Return the training number ``index`` of a seed, with some faults; the same for the same numbers."""
    draw = random.Random(f"faults/{seed}/{index}")
    recipe = draw.choice(["infopro_digits"] * 3 + ["dml_digits"] * 3 + ["greedy_digits"] * 2 + ["end_to_end_digits"])
    transport = draw.choice(["direct", "object_store"])
    steps = sorted(draw.sample(range(3, STEPS), draw.choice([2, 3, 3, 4])))
    if draw.random() < 0.1:
        steps[-1] = STEPS
    faults: list[Fault] = []
    for place, step in enumerate(steps):
        if place == 0 and draw.random() < 0.05:
            faults.append(_while_built(draw, draw.choice(LEARNERS[recipe]), BUILDING))
            continue
        faults += _draw_faults(draw, recipe, step)
    bad = next((fault for fault in faults if fault.victim == DISK), None)
    # A disk that takes nothing keeps other faults from the moments in which a checkpoint is written.
    if bad is not None:
        faults = [each for each in faults if each.phase != CHECKPOINT or each.step < bad.step or each is bad]
    starts_again = [fault for fault in faults if fault.kind in (KILL, STOP) and fault.victim in LEARNERS[recipe]]
    if starts_again and draw.random() < 0.25:
        faults.append(_while_built(draw, starts_again[0].victim, RECOVERING))
    if any(fault.kind in (CUT, FLIP) for fault in faults) and draw.random() < 0.25:
        recipe, step = "mkf_digits", _checkpoint_near(steps[0])
        faults = [file_fault("knowledge", draw.choice([CUT, FLIP]), step)]
    if len(LEARNERS[recipe]) > 1 and draw.random() < 0.05:
        # On a cluster, whose other processes are not the command's.
        faults = [learner_fault(draw.choice(LEARNERS[recipe]), NODE, draw.choice(OF_STEPS), steps[0])]
    return Case(recipe, transport, tuple(faults))


def _while_built(draw: random.Random, learner: str, phase: str) -> Fault:
    victim = draw.choice([learner, learner, RAYLET, GCS])
    return (
        learner_fault(learner, KILL, phase, 0) if victim == learner else process_fault(victim, KILL, phase, 0, learner)
    )


def _draw_faults(draw: random.Random, recipe: str, step: int) -> list[Fault]:
    kind = draw.choices(_OF_PROCESSES_AND_DISKS, weights=(10, 2, 4, 1, 1, 1, 1))[0]
    if kind in (CUT, FLIP):
        return [file_fault(draw.choice(FILES[:3]), kind, _checkpoint_near(step))]
    if kind in (FULL, FAILING):
        return [disk_fault(kind, _checkpoint_near(step))]
    if kind != STOP and draw.random() < 0.25:
        victim = draw.choice([DRIVER, RAYLET, GCS])
        phase = draw.choices([SUBMITTING, CHECKPOINT, EVALUATION, RECOVERING], weights=(3, 2, 1, 0))[0]
        return [process_fault(victim, kind, phase, _step_in(phase, step))]
    victim = draw.choice(LEARNERS[recipe])
    phases = [*OF_STEPS, CHECKPOINT, EVALUATION] + ([SENDING] * 2 if victim in SENDERS[recipe] else [])
    phase = draw.choice(phases)
    found = [learner_fault(victim, kind, phase, _step_in(phase, step))]
    others = [name for name in LEARNERS[recipe] if name != victim]
    if kind == KILL and phase in OF_STEPS and others and draw.random() < 0.2:
        # Two at once.
        found.append(learner_fault(draw.choice(others), KILL, draw.choice(OF_STEPS), step))
    return found


def _step_in(phase: str, step: int) -> int:
    if phase == EVALUATION:
        return min(_EVALUATIONS, key=lambda each: abs(each - step))
    return _checkpoint_near(step) if phase == CHECKPOINT else step


def _checkpoint_near(step: int) -> int:
    return min(STEPS, max(CHECKPOINT_EVERY, round(step / CHECKPOINT_EVERY) * CHECKPOINT_EVERY))

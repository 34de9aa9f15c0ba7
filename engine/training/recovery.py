"""Recovery: a team that has lost a process, a node or its Ray is started again, and goes on to the same weights."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from engine.errors import (
    BEGINS_AGAIN,
    GOES_ON,
    NOTHING_TRAINED,
    EngineError,
    LearnerError,
    LearnerLost,
    LearnerPreempted,
    NotRecovered,
    PlanError,
    RayEnded,
)
from engine.training.faults import Faults
from engine.training.loop import Training
from engine.training.losses import Budget, LossesOfTraining, without_remedy
from engine.training.result import Result
from engine.training.run_record import RunRecord
from engine.training.session import Session
from engine.training.snapshots import Snapshots

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


def train_on(session: Session, record: RunRecord, until_step: int | None = None) -> Result:
    """Train to the end or an interruption, however often a process ends.

    Nothing is known against what a lost learner did, and what was computed since the newest snapshot or checkpoint is
    computed again to the same bits. What a learner raised itself it would raise again, so that ends the run.

    Args:
        session: whose learners have just been started.
        record: of the run.
        until_step: stops after so many steps of the whole run; at its end unless given.

    Raises:
        LearnerLost, RayEnded: a process ended once too often, see `Recovery.max_failures`.
        LearnerPreempted: a node was taken away once too often, see `Recovery.max_preemption_failures`.
        DriverPreempted: the node of this process is being taken away.
        NotRecovered: the team could not be started again within `Recovery.wait_seconds`.
        LearnerError, RunError: as `Training.run`.
    """
    settings = session.plan.recovery
    failures = Budget(settings.max_failures, "failure")
    preemptions = Budget(settings.max_preemption_failures, "preemption failure", of_all=True)
    # Who trains in this process loses its memory together with its learners.
    snapshots = Snapshots(
        session.plan.recovery.snapshot_every_steps,
        are_wanted=session.plan.executor == "ray" and session.plan.recovery.max_failures != 0,
    )
    while True:
        training = Training(session, record, snapshots, until_step)
        alone = LossesOfTraining(training, snapshots, failures, record, session)
        if snapshots.are_wanted and (why := session.runtime.keep_for_losses(alone)) is not None:
            if session.recipe.method.goes_on_without_lost:
                record.say(f"method.on_loss=continue: nobody goes on without a lost peer here, all start again: {why}")
            else:
                record.folder.log(f"a lost learner does not come back alone here, but with its whole team: {why}")
        try:
            return training.run()
        except (LearnerLost, RayEnded) as error:
            newest = max(training.saved, snapshots.step)
            budget = preemptions if isinstance(error, LearnerPreempted) else failures
            cause = without_remedy(error)
            if isinstance(error.__cause__, EngineError):
                record.folder.log(f"it does not come back alone: {without_remedy(error.__cause__)}")
            is_noted = alone.has_noted(error)
            # Who stops a whole job may have stopped the learners, too.
            if training.is_interrupted or not (is_noted or budget.allows(newest, record.reached)):
                if training.saved:
                    raise
                raise _in_other_words(error, BEGINS_AGAIN) from None
            if not is_noted:
                record.note_fault(cause, newest)
            kind = "snapshot" if snapshots.step > training.saved else "checkpoint"
            whence = f"the {kind} of step {newest:,}" if newest else "the first step"
            record.say(f"{cause}; the team is started again, from {whence} ({budget.describe()})")
            # Its frames hold the messages of the team that is gone.
            traceback.clear_frames(error.__traceback__)
            with _lasting_ray(is_wanted=isinstance(error, LearnerLost) and budget.is_first):
                _start(session, record, cause, GOES_ON if training.saved else BEGINS_AGAIN)


def _lasting_ray(*, is_wanted: bool) -> AbstractContextManager[None]:
    """Keep a private Ray over a start of the team, unless it may be what the team was lost by."""
    if not is_wanted:
        return nullcontext()
    # Not imported where nothing runs on Ray.
    from engine.runtimes.ray import lasting_private_ray

    return lasting_private_ray()


@dataclass
class FirstStart:
    """What the first start of a session's learners was like, for a run folder that does not exist yet.

    Attributes:
        told: what was told, for the log.
        faults: that it has recovered from.
    """

    told: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)


def start_at_first(session: Session, tell: Callable[[str], None]) -> FirstStart:
    """Start a session's learners for the first time, again where a process of theirs or of Ray ends meanwhile.

    Args:
        session: whose images are open.
        tell: told of what has failed and is tried again.

    Raises:
        LearnerLost, RayEnded: it has failed once too often, see `Recovery.max_failures`.
        RecipeError, PlanError, LearnerError: as `Session.start`; trying again would not help.
    """
    failures, pause = Budget(session.plan.recovery.max_failures, "failure"), _FIRST_PAUSE_SECONDS
    first = FirstStart()
    while True:
        try:
            session.start()
            first.faults.settle()
            return first
        except (LearnerLost, RayEnded) as error:
            if not failures.allows(0, 0):
                raise _in_other_words(error, NOTHING_TRAINED) from None
            cause = without_remedy(error)
            first.faults.add(cause, 0, 0)
            first.told.append(f"{cause}; the team is started again in {pause:g} s ({failures.describe()})")
            tell(first.told[-1])
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _start(session: Session, record: RunRecord, cause: str, remedy: str) -> None:
    seconds = session.plan.recovery.wait_seconds
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
    while True:
        try:
            session.start()
            return
        except (PlanError, LearnerError, RayEnded) as error:
            why = without_remedy(error)
            left = deadline - time.monotonic()
            if left < pause:
                if isinstance(error, PlanError) and _start_on_less(session, record):
                    return
                raise NotRecovered(
                    f"{cause}; the team could not be started again within plan.recovery.wait_seconds={seconds:g}: "
                    f"{why} ({remedy})"
                ) from error
            record.say(f"the team cannot be started yet: {why}; tried again in {pause:g} s, for {left:.0f} s at most")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _start_on_less(session: Session, record: RunRecord) -> bool:
    """Start the team on what is left of a cluster; returns whether it has started."""
    reservations = session.reservations
    reservations.less_will_do = True
    try:
        session.start()
    except (PlanError, LearnerError, RayEnded):
        return False
    finally:
        reservations.less_will_do = False
    if reservations.describe():
        record.say(f"the learners are laid over what is left: {reservations.describe()}")
    return True


def _in_other_words(error: LearnerLost | RayEnded, remedy: str) -> LearnerLost | RayEnded:
    """Return an error that says something else of what the user could do about it."""
    if isinstance(error, RayEnded):
        return RayEnded(error.what, remedy)
    return type(error)(error.learner, error.cause.replace(GOES_ON, remedy), error.details)

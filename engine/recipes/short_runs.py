"""Cautions about runs of so few epochs that what the recipe counts in epochs is never reached."""

from __future__ import annotations

from engine.recipes.optimizer import Cosine, Schedule, Step

# So few epochs that one of them is more than a tenth of the run.
_FEW_EPOCHS = 10
# Where the last milestone of a shortened schedule is put: the published ones are at three to nine tenths of the run.
_LAST_MILESTONE = 0.9


def schedule_cautions(schedule: Schedule, epochs: int) -> list[str]:
    """Return what a user should know of a schedule in a run of so many epochs, a line each.

    A run of a single epoch is a trial: of what it never reaches nothing is said.
    """
    if epochs == 1:
        return _of_one_epoch(schedule) if isinstance(schedule, Cosine) else []
    if isinstance(schedule, Step):
        return [*_milestones(schedule.milestones, epochs), *_warm_up(schedule.warmup_epochs or 0, epochs)]
    if not isinstance(schedule, Cosine):
        return []
    if schedule.warmup_epochs >= epochs:
        return _warm_up(schedule.warmup_epochs, epochs)
    if epochs < _FEW_EPOCHS and schedule.counts_from == 1 and not schedule.counts_steps(epochs):
        return [
            f"the last of epochs={epochs} runs at a learning rate of 0, and learns nothing: with "
            "schedule.interval=step the rate falls from step to step, and with schedule.counts_from=0 it begins at "
            "optimizer.learning_rate"
        ]
    return []


def _of_one_epoch(schedule: Cosine) -> list[str]:
    if schedule.interval == "epoch" and schedule.counts_steps(1):
        return [
            "epochs=1 would run at a learning rate of 0 with schedule.interval=epoch and schedule.counts_from=1, so "
            "the rate falls from step to step, as with schedule.interval=step"
        ]
    if schedule.warmup_epochs and schedule.warmup_learning_rate == 0:
        return [
            "epochs=1 runs at a learning rate of 0, at which nothing is learned: it is the first epoch of the warm-up, "
            "and schedule.warmup_learning_rate=0; give more epochs, or schedule.warmup_epochs=0"
        ]
    return []


def _milestones(milestones: tuple[int, ...], epochs: int) -> list[str]:
    never = [milestone for milestone in milestones if milestone >= epochs]
    if not never:
        return []
    scaled = (round(milestone * _LAST_MILESTONE * epochs / milestones[-1]) for milestone in milestones)
    fitting = sorted({min(max(milestone, 1), epochs - 1) for milestone in scaled})
    return [
        f"epochs={epochs} ends before the learning rate changes at {_listed(never)} of "
        f"schedule.milestones={_listed(milestones)}; schedule.milestones={_listed(fitting)} fits this run"
    ]


def _warm_up(warmup_epochs: int, epochs: int) -> list[str]:
    if warmup_epochs < epochs:
        return []
    return [
        f"epochs={epochs} ends before the warm-up of schedule.warmup_epochs={warmup_epochs} does, so the run never "
        f"reaches its learning rate; schedule.warmup_epochs={max(1, epochs // 10)} fits this run"
    ]


def _listed(milestones: tuple[int, ...] | list[int]) -> str:
    return ",".join(map(str, milestones))

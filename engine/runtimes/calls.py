"""Checked calls: how every executor runs one call of a program, whatever way messages travel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor

from engine.data import Batch
from engine.errors import LearnerError
from engine.learners import Member
from engine.phases import PHASES
from engine.program import Message

# Nobody may write to a batch or a message, and arrays say so, which torch cannot express.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)


def make_call(
    learner: Member, phase: str, batch: Batch | None, taken: Mapping[str, Tensor], gives: Sequence[Message]
) -> tuple[Tensor, ...]:
    """Run one phase of a learner, and see that it keeps to the program.

    Args:
        learner: whose phase it is.
        phase: its name.
        batch: the batch, where the call takes it; read-only.
        taken: the other messages that the call takes, by name and in its order.
        gives: the messages that the call gives; what the phase offers beyond them is left out, because nobody takes
            it: what a network predicts in a step without an exchange, or is scored by where it has no cohort.

    Returns:
        one tensor for each message that the call gives.

    Raises:
        LearnerError: the phase failed, changed a message that it took, or gave too few or other ones than stated.
    """
    versions = {name: tensor._version for name, tensor in taken.items()}
    offered = learner.call(phase, batch, taken)
    for name, version in versions.items():
        if taken[name]._version != version:
            raise LearnerError(
                learner.name,
                f"{phase} changes the message {name!r} in place, which would change it for all who read it",
            )
    if len(offered) < len(gives):
        missing = ", ".join(repr(message.name) for message in gives[len(offered) :])
        raise LearnerError(
            learner.name, f"{phase} gave {len(offered)} of {len(gives)} messages that its call gives; {missing} missing"
        )
    given = tuple(offered[: len(gives)])
    for message, tensor in zip(gives, given, strict=True):
        _check(learner, phase, message, tensor)
    return given


def _check(learner: Member, phase: str, message: Message, tensor: Tensor) -> None:
    ((shape, dtype),) = message.parts
    # The last batch of an epoch may be smaller, whichever axis of the message goes with it. Whole images of other sizes
    # than those that are trained on may be evaluated.
    bounded = len(shape) if PHASES[phase].use == "training" else 1
    fits = len(tensor.shape) == len(shape) and all(map(int.__le__, tensor.shape[:bounded], shape))
    found = str(tensor.dtype).removeprefix("torch.")
    if fits and found == dtype:
        return
    raise LearnerError(
        learner.name,
        f"{phase} gave the message {message.name!r} as {'x'.join(map(str, tensor.shape))} {found}, but its program "
        f"states {message.describe()} at most",
    )

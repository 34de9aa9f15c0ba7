"""Turns what Ray raises into the learner that failed and the reason."""

from __future__ import annotations

import re

import ray.exceptions

from engine.errors import GOES_ON, LESS_MEMORY, EngineError, LearnerError, LearnerLost, LearnerPreempted

# What Ray says of an actor, from gcs_actor_manager.cc.
_NODE_DIED = "its node has died"


class LostStep(EngineError):
    """A call of this learner was never run, because what it takes was never made: another learner is to blame."""


def original_error(error: BaseException) -> BaseException:
    """Return the first error of a chain of tasks that failed because of one another."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def is_death(error: BaseException) -> bool:
    """Return whether an original error means that a process or its node is gone, and not that a phase failed."""
    return isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError)


def as_engine_error(
    error: BaseException,
    learner: str,
    process_id: int | None = None,
    ending: str | None = None,
    was_draining: bool = False,
    node: str | None = None,
) -> EngineError:
    """Return the error of the engine that says what happened to a learner.

    Args:
        error: what Ray raised, as `original_error` returned it.
        learner: name of the learner that failed.
        process_id: its process, for the message.
        ending: how that process ended, where the machine could tell.
        was_draining: whether there was notice of the end of its node.
        node: address of its node.
    """
    if isinstance(error, EngineError):
        return error
    where = f"its process {process_id}" if process_id else "its process"
    text = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return LearnerLost(
            learner,
            f"{where} was ended because its node ran out of memory; {LESS_MEMORY} ({GOES_ON})",
            text,
        )
    if isinstance(error, (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError)):
        if was_draining or error.preempted:
            return LearnerPreempted(learner, f"{where} died with its node, which was draining ({GOES_ON})", text)
        if _NODE_DIED in text:
            return LearnerLost(learner, f"{where} is gone with its {_lost_node(node)} ({GOES_ON})", text)
        if ending is None and isinstance(error, ray.exceptions.ActorUnavailableError):
            on = f" on node {node}" if node else ""
            return LearnerLost(
                learner,
                f"{where} died: nothing{on} answers for it: it or its node has ended, or the network fails ({GOES_ON})",
                text,
            )
        return LearnerLost(learner, f"{where} died: {_cause_of_death(text, ending)} ({GOES_ON})", text)
    if isinstance(error, ray.exceptions.NodeDiedError):
        kind = LearnerPreempted if was_draining else LearnerLost
        return kind(learner, f"{where} is gone with its {_lost_node(node)} ({GOES_ON})", text)
    return LearnerError(learner, f"{type(error).__name__}: {text[:300]}", text)


def _lost_node(node: str | None) -> str:
    return f"node{f' {node}' if node else ''}, which has ended or cannot be reached"


def _cause_of_death(text: str, ending: str | None) -> str:
    if "ray.kill" in text:
        return "it was ended by ray.kill"
    if ending is not None:
        return ending
    exit_code = re.search(r"exit code (-?\d+)", text)
    if exit_code:
        return f"exit code {exit_code.group(1)}"
    if "connection error code" in text:
        return (
            "its connection ended without a word, as after a kill signal (SIGKILL, the kernel's out-of-memory killer) "
            "or a crash (SIGSEGV)"
        )
    return text[:300]

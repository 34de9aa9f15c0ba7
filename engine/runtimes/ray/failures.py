"""Turns what Ray raises into the learner that failed and the reason."""

from __future__ import annotations

import re

import ray.exceptions

from engine.errors import EngineError, LearnerError

_REMEDY = "the newest checkpoint is whole; the same command goes on from it"


def original_error(error: BaseException) -> BaseException:
    """Return the first error of a chain of tasks that failed because of one another."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def as_engine_error(error: BaseException, learner: str, process_id: int | None) -> EngineError:
    """Return the error of the engine that says what happened to a learner.

    Args:
        error: what Ray raised when the learner's answer was fetched.
        learner: name of the learner that was asked.
        process_id: its process, for the message.
    """
    error = original_error(error)
    if isinstance(error, EngineError):
        return error
    where = f"its process {process_id}" if process_id else "its process"
    text = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "due to the node running low on memory" in text:
        return LearnerError(
            learner,
            f"{where} was ended because its node ran out of memory; raise method.num_segments or lower "
            f"data.batch_size ({_REMEDY})",
            text,
        )
    if isinstance(error, (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError)):
        return LearnerError(learner, f"{where} died: {_cause_of_death(text)} ({_REMEDY})", text)
    if isinstance(error, ray.exceptions.NodeDiedError):
        return LearnerError(learner, f"the node of {where} died ({_REMEDY})", text)
    return LearnerError(learner, f"{type(error).__name__}: {text[:300]}", text)


def _cause_of_death(text: str) -> str:
    exit_code = re.search(r"exit code(?:[ =:]+)(-?\d+)", text, re.IGNORECASE)
    if exit_code:
        return f"exit code {exit_code.group(1)}"
    if "ray.kill" in text:
        return "it was ended by ray.kill"
    signal_name = re.search(r"\b(SIG[A-Z]{3,5})\b", text)
    if signal_name and "potential root causes" not in text:
        return f"signal {signal_name.group(1)}"
    if "connection error code 2" in text or "unexpected" in text.lower():
        return (
            "its connection ended without a word, as after a kill signal (SIGKILL, the kernel's out-of-memory killer) "
            "or a crash (SIGSEGV)"
        )
    return text[:300]

"""Work that needs no learner: functions run as Ray tasks, each by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import ray

from engine.errors import EngineError, LearnerLost
from engine.reading import first_line
from engine.recipes import Plan
from engine.runtimes.ray.cluster import connect, disconnect, node_resources
from engine.runtimes.ray.waiting import SLICE_SECONDS, check_after, check_alive, waiting_for_ray

_Argument = TypeVar("_Argument")


class RayTasks:
    """A connection to Ray for tasks; it is left as it was found.

    Args:
        plan: says which Ray; a private one unless it has an address.

    Raises:
        PlanError: no Ray answers, or none starts.
    """

    def __init__(self, plan: Plan) -> None:
        self._owns_ray = connect(plan, needed_store_bytes=0)

    def __enter__(self) -> RayTasks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_ray:
            disconnect()

    def run(
        self, function: Callable[[_Argument], Any], arguments: Sequence[_Argument]
    ) -> Iterator[tuple[_Argument, Any]]:
        """Yield each argument with what the function gives for it, in the order in which they are done.

        Each has a CPU of its own, and a GPU where there are some. What is still to be done is cancelled when the caller
        stops asking.

        Args:
            function: of a module, which every node must have.
            arguments: that can be pickled.

        Raises:
            EngineError: as the function; LearnerLost: a task's process or node has ended.
            RayEnded: the private Ray has ended meanwhile.
        """
        gpus = 1 if any(node.get("GPU", 0) for node in node_resources()) else 0
        task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(_answer)
        waiting = {task.remote(function, argument): argument for argument in arguments}
        try:
            while waiting:
                with waiting_for_ray():
                    ready, _ = ray.wait(list(waiting), timeout=SLICE_SECONDS)
                    check_alive()
                for reference in ready:
                    argument = waiting.pop(reference)
                    yield argument, _fetched(reference, argument)
        finally:
            for reference in waiting:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=True)


def _answer(function: Callable[[_Argument], Any], argument: _Argument) -> tuple[Any, EngineError | None]:
    """Return what a function gives, or the engine's error: Ray would wrap that into one of its own."""
    try:
        return function(argument), None
    except EngineError as error:
        return None, error


def _fetched(reference: Any, argument: object) -> Any:
    try:
        with waiting_for_ray():
            given, error = ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as failure:
        check_after(failure)
        raise LearnerLost(str(argument), f"its task was lost: {first_line(failure)}") from failure
    if error is not None:
        raise error
    return given

"""Runs of a comparison: each in a process of its own, some at once, stopped together, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
import torch

from engine.atomic import open_appending, write_error
from engine.errors import EXIT_INTERRUPTED
from engine.recipes import Plan, Recipe, plan_to_dict, recipe_to_dict
from engine.runtimes.child import python_command, tell, wait_or_kill
from engine.runtimes.stopped import STOPPED_SECONDS, StoppedProcesses
from engine.training.folder import read_summary
from engine.training.interruption import Interruption

_CODE = "from engine.comparison.child import main; sys.exit(main())"
_PAUSE_SECONDS = 0.05
_SECONDS_TO_STOP_AT_ONCE = 10.0
# A run that is stopped does not hear that it shall write a checkpoint.
_SECONDS_TO_HEAR = 3.0
_INTERRUPTED = (EXIT_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM)

Slot = Mapping[str, str]
"""What one run at a time has for itself: variables of its environment, such as the GPU that it may see."""


@dataclass(frozen=True)
class Job:
    """One run of a comparison.

    Attributes:
        label: of its recipe.
        recipe: what to train, with its seed.
        run_dir: its folder.
    """

    label: str
    recipe: Recipe
    run_dir: Path


def free_slots(recipes: Sequence[Recipe], plan: Plan, max_concurrent: int | None) -> list[Slot]:
    """Return a slot for each run that is trained at once.

    On Ray, which has all devices, one. In processes, one for each GPU if a recipe may use it; else as many as this
    process has cores for the threads that each recipe asks for. `max_concurrent` takes the place of these numbers.
    """
    if plan.executor == "ray":
        return [{}]
    threads = max(recipe.numerics.threads for recipe in recipes)
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    gpus = _gpus() if any(recipe.numerics.device != "cpu" for recipe in recipes) else []
    number = max_concurrent or len(gpus) or max(1, len(os.sched_getaffinity(0)) // threads)
    if not gpus:
        return [environment] * number
    return [{**environment, "CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(number)]


def _gpus() -> list[str]:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(index) for index in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def run_jobs(
    jobs: Sequence[Job],
    plan: Plan,
    slots: Sequence[Slot],
    started: Callable[[Job], None],
    ended: Callable[[Job, str | None], None],
) -> bool:
    """Train all runs, as many at once as there are slots.

    Ctrl-C and SIGTERM let every run that is being trained finish its step and write a checkpoint; a second one ends
    them at once. A run that fails does not stop the others. One whose process is stopped for as long as
    `Recovery.stall_seconds`, or a minute, is ended; if all are to stop, after some seconds. However this process ends,
    its runs end, too.

    Args:
        jobs: in the order to start them.
        plan: where each of them runs.
        slots: what each of the runs that are trained at once has for itself.
        started: told when a run starts.
        ended: told when a run ends by itself, with the cause if it failed.

    Returns:
        whether all runs ended by themselves.

    Raises:
        RunError: a run folder cannot be written.
    """
    waiting, free, running, complete = deque(jobs), deque(slots), list[_Child](), True
    hanging = StoppedProcesses[Path](plan.recovery.stall_seconds or STOPPED_SECONDS)
    deaf = StoppedProcesses[Path](_SECONDS_TO_HEAR)
    try:
        with Interruption() as interruption:
            while running or (waiting and not interruption.requested):
                while waiting and free and not interruption.requested:
                    running.append(_start(waiting.popleft(), plan, free.popleft()))
                    started(running[-1].job)
                if interruption.requested:
                    for child in running:
                        child.ask_to_stop()
                _end_those_that_hang(running, deaf if interruption.requested else hanging)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    free.append(child.slot)
                    if interruption.requested and child.was_interrupted():
                        complete = False
                    else:
                        ended(child.job, child.failure())
                    child.close()
                time.sleep(_PAUSE_SECONDS)
        return complete and not waiting
    finally:
        _stop_at_once(running)


@dataclass
class _Child:
    """A run that is being trained."""

    job: Job
    slot: Slot
    process: subprocess.Popen[str]
    hung: str | None = None
    _asked: bool = field(default=False)

    def ask_to_stop(self) -> None:
        """Let it finish its step and write a checkpoint."""
        if not self._asked:
            self._asked = True
            _close(self.process.stdin)

    def was_interrupted(self) -> bool:
        """Return whether it ended because it was asked to, or did not hear of it, before it had finished."""
        is_over = self.process.returncode in _INTERRUPTED or self.hung is not None
        return is_over and not _is_finished(self.job.run_dir)

    def failure(self) -> str | None:
        """Return why it failed; None if it finished."""
        if _is_finished(self.job.run_dir):
            return None
        code, log = self.process.returncode, self.job.run_dir / "log.txt"
        if self.hung is not None:
            return f"its {self.hung}, and was ended; {log} holds what it said"
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()
        # Killed in the middle of a line it has said nothing.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if lines:
                return str(json.loads(lines[-1])["error"]).replace("\n", "; ")
        if code in _INTERRUPTED:
            return "its process was interrupted from outside"
        if code < 0:
            memory = ", as when memory runs out" if code == -signal.SIGKILL else ""
            return f"its process was ended by {signal.Signals(-code).name}{memory}; {log} holds what it said"
        return f"its process ended with exit code {code}; {log} holds what it said"

    def close(self) -> None:
        """Close the pipes to a process that has ended."""
        _close(self.process.stdin)
        _close(self.process.stdout)


def _start(job: Job, plan: Plan, slot: Slot) -> _Child:
    try:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        with open_appending(job.run_dir / "log.txt") as log:
            process = subprocess.Popen(
                python_command(_CODE),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **slot},
                # Ctrl-C on a terminal reaches this process alone, which then asks its runs to stop: once, not twice.
                start_new_session=True,
            )
    except OSError as error:
        raise write_error(job.run_dir, error) from error
    child = _Child(job, slot, process)
    values = {"recipe": recipe_to_dict(job.recipe), "plan": plan_to_dict(plan), "run_dir": str(job.run_dir)}
    tell(process, values)
    return child


def _end_those_that_hang(running: Sequence[_Child], stopped: StoppedProcesses[Path]) -> None:
    children = {child.job.run_dir: child for child in running}

    def find() -> dict[Path, psutil.Process]:
        found = {}
        for run_dir, child in children.items():
            with contextlib.suppress(psutil.Error):
                found[run_dir] = psutil.Process(child.process.pid)
        return found

    for run_dir, what in stopped.look(find).items():
        children[run_dir].hung = what
        children[run_dir].process.kill()


def _stop_at_once(running: Sequence[_Child]) -> None:
    """End runs without another checkpoint, those that do not listen by force."""
    for child in running:
        child.ask_to_stop()
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGINT)
    wait_or_kill([child.process for child in running], _SECONDS_TO_STOP_AT_ONCE)
    for child in running:
        child.close()


def _close(pipe: IO[str] | None) -> None:
    with contextlib.suppress(OSError):
        if pipe is not None:
            pipe.close()


def _is_finished(run_dir: Path) -> bool:
    summary = read_summary(run_dir)
    return summary is not None and summary["status"] == "finished"

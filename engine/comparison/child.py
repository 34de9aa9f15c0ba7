"""One run of a comparison, in a process of its own, which ends with a checkpoint when it is told to or left alone.

Its standard input is one line of JSON that says what to train, and stays open for as long as the run shall go on. The
last line of its standard output says why the run failed, if it did; all else that is said goes to the run's log.txt.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from engine.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, EngineError, FolderHeld, LearnerError
from engine.recipes import Plan, Recipe, plan_from_dict, recipe_from_dict
from engine.runtimes.child import answer, open_answers
from engine.tracking import Console, open_console
from engine.training.entry import train
from engine.training.result import Result

_STDIN = 0
# A run whose comparison was killed finishes its step, and writes a checkpoint, before it ends.
_SECONDS_UNTIL_FREE = 60.0
_PAUSE_SECONDS = 0.2


def main() -> int:
    """Train what standard input says; returns the exit code."""
    # Whatever else is printed, by a recipe's own code for instance, goes to the log.
    report = open_answers()
    try:
        job = _read_job()
        threading.Thread(target=_stop_when_told, daemon=True).start()
        with open_console(sys.stderr, quiet=False) as console:
            recipe, plan = recipe_from_dict(job["recipe"]), plan_from_dict(job["plan"])
            result = train_when_free(recipe, plan, Path(job["run_dir"]), console)
        return EXIT_SUCCESS if result.status == "finished" else EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except EngineError as error:
        if isinstance(error, LearnerError):
            sys.stderr.write(f"{error.details}\n")
        answer(report, {"error": str(error)})
        return error.exit_code
    finally:
        report.close()


def train_when_free(recipe: Recipe, plan: Plan, run_dir: Path, console: Console) -> Result:
    """Train a run, after a process that may hold its folder still; as `engine.training.train`.

    Raises:
        FolderHeld: it holds the folder for more than a minute.
    """
    started = time.monotonic()
    waits = False
    while True:
        try:
            return train(recipe, plan, run_dir, "auto", console)
        except FolderHeld as error:
            if time.monotonic() - started > _SECONDS_UNTIL_FREE:
                raise
            if not waits:
                console.message(f"{str(error).rpartition(';')[0]}; it is waited for")
            waits = True
            time.sleep(_PAUSE_SECONDS)


def _read_job() -> dict[str, Any]:
    # Not through sys.stdin: a thread that waits inside of its buffer would stop this process from ending.
    text = b""
    while not text.endswith(b"\n"):
        piece = os.read(_STDIN, 1 << 16)
        if not piece:
            raise KeyboardInterrupt
        text += piece
    job: dict[str, Any] = json.loads(text)
    return job


def _stop_when_told() -> None:
    """Wait for the end of standard input, which comes also when the comparison is killed, then press Ctrl-C."""
    while os.read(_STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)

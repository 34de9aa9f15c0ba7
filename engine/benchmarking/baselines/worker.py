"""One process of a job: it is told over standard input what to do, and answers over standard output.

A line of JSON each way: first the job, then requests such as ``{"do": "run", "case": "ddp", "steps": 10}``, of a case
of the job, or ``{"do": "attempt", "settings": {...}, "steps": 3, "check": true}``, of one that lives no longer.
Between requests the process waits in a read and uses no processor. It ends when standard input does, and with its
parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any, TextIO

from engine.runtimes.child import answer, open_answers

_PR_SET_PDEATHSIG = 1  # From linux/prctl.h.


def main() -> int:
    """Serve one job; returns the exit code."""
    answers = open_answers()
    # Ctrl-C on a terminal is the parent's business: it reaches neither this process nor those that it starts.
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = sys.stdin.readline()
    if not first:
        return 0
    try:
        _serve(json.loads(first), answers)
    except BrokenPipeError:
        return 1
    except Exception as error:
        answer(answers, _failure(error))
        return 1
    return 0


def _end_with_parent(how: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, how)


def _serve(values: dict[str, Any], answers: TextIO) -> None:
    from engine.benchmarking.baselines.job import Job
    from engine.learners import numerics_applied
    from engine.learners.allocator import give_back_freed_memory

    job = Job.from_json(values)
    is_engine = job.kind == "engine"
    # This engine may have started a Ray, which ends in good order when Python does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _end_with_parent(signal.SIGTERM if is_engine else signal.SIGKILL)
    module = importlib.import_module(f"engine.benchmarking.baselines.{'this_engine' if is_engine else job.kind}")
    with contextlib.ExitStack() as settings:
        if not is_engine:
            settings.enter_context(numerics_applied(job.recipe.numerics))
        cases = module.open_cases(job)
        answer(answers, {"ready": True})
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if request["do"] == "attempt":
                    found = _attempt(module, job, request)
                else:
                    found = _do(cases[request["case"]], request)
            except Exception as error:
                found = _failure(error)
            # Let the processes that wait hold little, since there are many of them.
            gc.collect()
            give_back_freed_memory()
            answer(answers, found)
        for case in cases.values():
            case.close()


def _attempt(module: Any, job: Any, request: dict[str, Any]) -> dict[str, Any]:
    from engine.benchmarking.baselines.rendezvous import first_reason

    case, refused = None, ""
    try:
        case = module.open_case(request["settings"], job)
    except Exception as error:
        refused = _failure(error)["error"]
    # Those that could begin would wait in vain for one that could not.
    refused = first_reason(refused)
    try:
        if case is None or refused:
            return {"refused": refused}
        found: dict[str, Any] = case.attempt(request["steps"], request["check"])
        return found
    finally:
        if case is not None:
            case.close()


def _do(case: Any, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "prepare":
        prepared: dict[str, Any] = case.prepare()
        return prepared
    if request["do"] == "digests":
        return {"weights": case.digests()}
    found: dict[str, Any] = case.run(request["steps"])
    return found


def _failure(error: Exception) -> dict[str, Any]:
    from engine.errors import EngineError
    from engine.learners import explain

    traceback.print_exc()
    return {"error": str(error) if isinstance(error, EngineError) else explain(error)}


if __name__ == "__main__":
    sys.exit(main())

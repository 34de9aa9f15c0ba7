"""Checks of `local-learning doctor`: a private Ray that starts, and an actor that answers.

Tried in a process of its own, which can be ended when Ray hangs.
"""

from __future__ import annotations

import contextlib
import subprocess
import time

import psutil

from engine.cli.check import Check
from engine.runtimes.child import python_command

_TIMEOUT_SECONDS = 90.0
_GRACE_SECONDS = 5.0
_REMEDY = (
    "until it does, use --on process. Often the reasons are a firewall between this machine's own ports, a full "
    "temporary folder, or too little shared memory"
)
_CODE = """
import ray
from engine.runtimes.ray import disconnect, start_private_ray

start_private_ray(num_cpus=1)
try:
    class Answerer:
        def answer(self):
            return "answered"
    actor = ray.remote(Answerer).remote()
    print(ray.get(actor.answer.remote(), timeout=60))
finally:
    disconnect()
"""


def ray_check(timeout_seconds: float = _TIMEOUT_SECONDS) -> Check:
    """Start a private Ray, ask an actor, and stop it again."""
    started = time.monotonic()
    child = subprocess.Popen(
        python_command(_CODE), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        output, errors = child.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        _end(child)
        return Check("problem", "Ray", f"did not start within {timeout_seconds:g} s", _REMEDY)
    except BaseException:
        _end(child)
        raise
    if child.returncode == 0 and output.split()[-1:] == ["answered"]:
        return Check("ok", "Ray", f"starts, and an actor answers, in {time.monotonic() - started:.0f} s")
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "it said nothing")
    return Check("problem", "Ray", f"does not start: {last.strip()}", _REMEDY)


def _end(child: subprocess.Popen[str]) -> None:
    """End the process and all that it started: a private Ray ends with it, and leaves nothing if it is let."""
    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    _, left = psutil.wait_procs(below, timeout=_GRACE_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    child.communicate()

"""Does Ray's own end of a process become ours, and is a process that ends noticed at once?"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from engine.runtimes.ray.private import last_exit
from engine.runtimes.ray.private.deaths import Deaths

# What Ray calls where its raylet is gone.
PROGRAM = """
import ctypes, os, threading
from ray import _raylet
from engine import last_words
from engine.runtimes.ray.private import last_exit

if {ours}:
    assert last_exit.take_over(os.abort) and last_exit.take_over(last_exit.end_with_cluster)
quick_exit = getattr(ctypes.CDLL(_raylet.__file__), "_ZN3ray4core26CoreWorkerShutdownExecutor9QuickExitEv")
with last_words.said_as_object({as_object}):
    thread = threading.Thread(target=quick_exit, args=[0])
    thread.start()
    thread.join()
os._exit(7)
"""


@pytest.mark.parametrize(("ours", "as_object", "code"), [(False, True, 1), (True, False, 3), (True, True, 3)])
def test_where_ray_ends_a_process_a_function_of_ours_does(ours: bool, as_object: bool, code: int) -> None:
    program = PROGRAM.format(ours=ours, as_object=as_object)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.returncode == code, answer.stderr
    last = answer.stderr.splitlines()[-1:]  # Behind Ray's own.
    assert bool(last and last[0].startswith("local-learning: error: the raylet of this node is gone")) is ours
    assert bool(answer.stdout) is (ours and as_object)
    if answer.stdout:
        assert json.loads(answer.stdout) == {"error": last[0].partition("error: ")[2], "exit_code": 3}


def test_who_was_to_end_it_does_not_once_that_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_exit, "_end", os.abort)
    last_exit.take_back(sys.exit)
    assert last_exit._end is os.abort, "somebody else's"
    last_exit.take_back(os.abort)
    assert last_exit._end is last_exit.end_with_cluster


def test_a_process_that_ends_is_noticed_at_once() -> None:
    children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    deaths = Deaths(child.pid for child in children)
    try:
        assert not deaths.seen()
        children[1].kill()
        children[1].wait()
        assert deaths.seen()
        deaths.close()
        assert deaths.seen()
        assert Deaths([children[1].pid]).seen()
    finally:
        for child in children:
            child.kill()
            child.communicate()

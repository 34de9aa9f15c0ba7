"""Does Ray's own end of a process become ours, and is a process that ends noticed at once?"""

from __future__ import annotations

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
from engine.runtimes.ray.private import last_exit

def end():
    os.write(2, b"a word of ours")
    os._exit(3)

if {ours}:
    assert last_exit.take_over(os.abort) and last_exit.take_over(end)
quick_exit = getattr(ctypes.CDLL(_raylet.__file__), "_ZN3ray4core26CoreWorkerShutdownExecutor9QuickExitEv")
thread = threading.Thread(target=quick_exit, args=[0])
thread.start()
thread.join()
os._exit(7)
"""


@pytest.mark.parametrize(("ours", "code", "words"), [(False, 1, ""), (True, 3, "a word of ours")])
def test_where_ray_ends_a_process_a_function_of_ours_does(ours: bool, code: int, words: str) -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM.format(ours=ours)], capture_output=True, text=True)
    assert (answer.returncode, "a word of ours" in answer.stderr) == (code, bool(words)), answer.stderr
    assert answer.stderr.endswith(words)  # Behind Ray's own.


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

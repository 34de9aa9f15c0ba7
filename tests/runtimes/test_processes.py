"""Is it told how a process ended that is not our child?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from engine.runtimes.ray import processes
from engine.runtimes.ray.processes import WatchedProcess

# The watched process is the child of this one, which waits for it, as Ray's raylet does.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import os, sys; sys.stdin.read(); " + sys.argv[1]], stdin=sys.stdin)
print(child.pid, flush=True)
child.wait()
"""


def _ending_of(last_words: str) -> str | None:
    command = [sys.executable, "-c", PARENT, last_words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        watched = WatchedProcess(int(parent.stdout.readline()))
        try:
            parent.stdin.close()
            parent.wait(timeout=60)
            return watched.ending()
        finally:
            watched.close()
            watched.close()


@pytest.fixture(scope="module")
def _kernel_tells() -> None:
    if _ending_of("") is None:
        pytest.skip("this kernel does not tell how another process's child ended; Linux 6.15 does")


@pytest.mark.usefixtures("_kernel_tells")
@pytest.mark.parametrize(
    ("last_words", "ending"),
    [
        ("os._exit(7)", "exit code 7"),
        ("sys.exit(0)", "exit code 0"),
        ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("os.kill(os.getpid(), 11)", "signal SIGSEGV"),
        ("os.kill(os.getpid(), 34)", "signal SIGRTMIN"),
    ],
)
def test_endings(last_words: str, ending: str) -> None:
    assert _ending_of(last_words) == ending


@pytest.mark.usefixtures("_kernel_tells")
def test_a_kill_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([3, 4])
    monkeypatch.setattr(processes, "_out_of_memory_kills", lambda: next(counts))
    assert _ending_of("os.kill(os.getpid(), 9)") == "out of memory: the kernel ended it with SIGKILL"


def _no_such_call(_: int) -> int:
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("change", [lambda patched: patched.setattr(os, "pidfd_open", _no_such_call),
                                    lambda patched: patched.delattr(os, "pidfd_open")])  # fmt: skip
def test_an_old_system_does_not_know(
    change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    assert WatchedProcess(os.getpid()).ending() is None


def test_an_old_kernel_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(processes.fcntl, "ioctl", refuse)
    watched = WatchedProcess(os.getpid())
    started = time.monotonic()
    assert watched.ending() is None
    assert time.monotonic() - started < processes._PATIENCE_SECONDS
    watched.close()

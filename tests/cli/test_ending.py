"""Does a command that is told to end do so with 130, also where its main thread hangs outside of Python?"""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

COMMAND = """
import sys, time
from engine.cli.ending import ending_in_time
from engine.errors import EXIT_INTERRUPTED, Interrupted

try:
    with ending_in_time(as_json=True, patience_seconds=float(sys.argv[1])):
        {work}
except Interrupted:
    print("ended in order")
    sys.exit(EXIT_INTERRUPTED)
"""

# exec() of a text: Python would remember a plain KeyboardInterrupt, and end with the signal.
IN_TEXT = """exec("print('begun', flush=True); time.sleep(600)")"""
# Whatever is raised, it goes on.
DEAF = """
        while True:
            try:
                print("begun", flush=True)
                time.sleep(600)
            except BaseException:
                continue
"""
NOBODY_INTERRUPTS = "print('begun', flush=True); print('done'); raise SystemExit(0)"


def _told(work: str, *numbers: signal.Signals, patience: float = 600) -> tuple[int, list[str]]:
    """Exit code and lines of a command that gets signals once it has begun."""
    words = [sys.executable, "-c", COMMAND.replace("{work}", work), str(patience)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for number in numbers:
            process.send_signal(number)
        output = process.stdout.read()
        return process.wait(), output.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_means_the_same(number: signal.Signals) -> None:
    assert _told(IN_TEXT, number) == (130, ["ended in order"])


def test_what_does_not_end_is_ended() -> None:
    code, lines = _told(DEAF, signal.SIGTERM, patience=0.2)
    assert code == 130
    assert json.loads(lines[-1]) == {"error": "interrupted", "exit_code": 130}


def test_whoever_asks_twice_does_not_wait() -> None:
    code, lines = _told(DEAF, signal.SIGTERM, signal.SIGHUP)
    assert code == 130
    assert json.loads(lines[-1])["error"] == "interrupted"


def test_what_nobody_interrupts_ends_as_it_does() -> None:
    assert _told(NOBODY_INTERRUPTS) == (0, ["done"])

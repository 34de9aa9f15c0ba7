"""Does every signal that means an end raise once, and end a process that is deaf to it?"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from engine.cli.signals import SIGNALS, interruptible
from engine.errors import Interrupted


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_an_interruption(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Interrupted), interruptible():
        signal.raise_signal(number)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_what_shall_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


COMMAND = """
import ctypes, os, signal, sys, time
from engine import last_words
from engine.cli import signals
from engine.errors import Interrupted

signals._SECONDS = signals._SECONDS_OF_A_SECOND = float(sys.argv[1])
try:
    with last_words.said_as_object(True), signals.interruptible():
        {work}
except Interrupted:
    print("ended in order")
    sys.exit(130)
"""
# exec() of a text: Python would remember a plain KeyboardInterrupt, and end with the signal.
IN_TEXT = """exec("print('begun', flush=True); time.sleep(600)")"""
# Code outside of Python that waits on after a signal. It says itself that it waits: a signal that comes before would
# still find Python. What it waits for ends with the process.
DEAF = """
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        ctypes.CDLL(None).system(f"echo begun; exec cat <&{reading} >&2".encode())
"""
# Somebody else takes the signals over, as a training that finishes its step does.
TAKEN_OVER = """
        heard = []
        for number in signals.SIGNALS:
            signal.signal(number, lambda *words: heard.append(words))
        print("begun", flush=True)
        while not heard:
            time.sleep(0.01)
        time.sleep(1.0)
        print("finished its step", flush=True)
        while True:
            time.sleep(600)
"""
WHOLE = """
        with signals.whole_at_any_moment():
            for number in signals.SIGNALS:
                signal.signal(number, lambda *words: None)
            print("begun", flush=True)
            while True:
                time.sleep(600)
"""


def _told(work: str, *numbers: signal.Signals, patience: float) -> tuple[int, list[str]]:
    """Return exit code and lines of a command that gets signals; a line between two of them is waited for."""
    words = [sys.executable, "-c", COMMAND.replace("{work}", work), str(patience)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        lines = []
        for place, number in enumerate(numbers):
            if place and work is TAKEN_OVER:
                lines.append(process.stdout.readline().strip())
            elif place:
                time.sleep(0.7)  # two that come at once are one
            process.send_signal(number)
        output = process.stdout.read()
        return process.wait(), lines + output.splitlines()


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_means_the_same(number: signal.Signals) -> None:
    assert _told(IN_TEXT, number, patience=600) == (130, ["ended in order"])


def test_a_process_that_is_deaf_ends_as_well() -> None:
    code, lines = _told(DEAF, signal.SIGTERM, patience=0.5)
    assert code == 130
    assert json.loads(lines[-1]) == {"error": "interrupted, while something did not answer", "exit_code": 130}


def test_who_has_taken_the_signals_over_has_time_until_the_second_one() -> None:
    code, lines = _told(TAKEN_OVER, signal.SIGINT, signal.SIGINT, patience=0.5)
    assert code == 130
    assert lines[0] == "finished its step"


def test_what_is_whole_at_any_moment_ends_soon_or_at_once() -> None:
    assert _told(WHOLE, signal.SIGTERM, patience=0.5)[0] == 130
    assert _told(WHOLE, signal.SIGTERM, signal.SIGHUP, patience=600)[0] == 130

"""Does every signal that means an end raise once, and end a process that is deaf to it?"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from engine.cli.signals import SIGNALS, interruptible


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_an_interruption(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), interruptible():
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


# A read that is started anew after a signal without a look at Python, as code outside of Python waits.
DEAF = """
import os, signal, sys
from engine.cli import signals
signals._SECONDS = 0.5
with signals.interruptible():
    signal.pthread_sigmask(signal.SIG_BLOCK, [])
    import ctypes
    reading, writing = os.pipe()
    os.kill(os.getpid(), 0)
    import threading
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    signal.siginterrupt(signal.SIGTERM, False)
    buffer = ctypes.create_string_buffer(1)
    ctypes.CDLL(None).read(reading, buffer, 1)
"""


def test_a_process_that_is_deaf_ends_as_well() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "local-learning: error: interrupted, while something did not answer\n"

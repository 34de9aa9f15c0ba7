"""Signals of a search while Ray starts."""

from __future__ import annotations

import os
import signal

import pytest

from engine.errors import Interrupted, PlanError
from engine.search.stopping import Stop


def test_what_fails_after_a_signal_is_an_interruption() -> None:
    # A signal to the whole group can end a process that has been started, but has no session of its own yet.
    failure = PlanError("a private Ray does not start: its first process ended")
    with Stop() as stop:
        with pytest.raises(PlanError), stop.held():
            raise failure
        with pytest.raises(Interrupted) as found, stop.held():
            os.kill(os.getpid(), signal.SIGTERM)
            raise failure
    assert found.value.__cause__ is failure

"""Is an answer that does not come given up, and one that comes passed on?"""

from __future__ import annotations

import threading

import pytest

from engine.data.remote.patience import answered


def test_answers_and_errors_are_passed_on() -> None:
    assert answered(lambda: 3, 10) == 3

    def fail() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        answered(fail, 10)


def test_what_does_not_answer_is_given_up() -> None:
    ended = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0 seconds"):
        answered(ended.wait, 0.05)
    stop = threading.Event()
    stop.set()
    with pytest.raises(TimeoutError, match="not waited for any longer"):
        answered(ended.wait, 1000, stop)
    ended.set()

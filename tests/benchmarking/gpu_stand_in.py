"""A stand-in for learners on a GPU, which is asked for more than it has done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Behind:
    """A runtime whose device does later what it was asked for; its clock goes on when somebody waits."""

    def __init__(self, host: float, device: float, filling: float) -> None:
        self.now, self.free, self._times = 0.0, 0.0, (host, device, filling)
        self._asked = False

    def submit(self, *_: object) -> None:
        host, device, filling = self._times
        self.now += host
        # The first step after a time without any meets an empty pipeline.
        self.free = max(self.free, self.now) + device + (0.0 if self._asked else filling)
        self._asked = True

    def ask(self, question: str) -> Any:
        if question == "metrics":
            self.now, self._asked = max(self.now, self.free), False
        answers = {"memory": {"segment0": {"total": 7, "reserved": 9}}, "metrics": {}}
        return SimpleNamespace(result=lambda: answers[question])

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass

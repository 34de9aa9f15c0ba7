"""Is a checkpoint at which peers had left their cohort analysed without them, and refused where none is left?"""

from __future__ import annotations

from typing import Any

import pytest

from engine.analysis import Settings, analyse
from engine.errors import InputError, RunError
from engine.training import Run

FEW = Settings(images=8)


def _leave(monkeypatch: pytest.MonkeyPatch, *peers: str) -> None:
    monkeypatch.setattr(Run, "diverged", dict.fromkeys(peers, "its loss is nan"))


def test_nothing_is_left_to_be_analysed(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("dml")
    _leave(monkeypatch, "peer0", "peer1")
    with pytest.raises(RunError, match=r"step-000004: every peer had left its cohort .* give an earlier one, RUN/"):
        analyse([run], ["posterior"], FEW)
    assert not (run / "analysis").exists()


def test_the_one_that_is_left_is_not_compared(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("dml")
    _leave(monkeypatch, "peer1")
    with pytest.raises(InputError, match=f"{run} has one network left, which is not cut; give another run, too"):
        analyse([run], ["similarity"], FEW)
    (finding,) = analyse([run], ["posterior"], FEW)
    assert [row["network"] for row in finding.rows] == ["peer0"]

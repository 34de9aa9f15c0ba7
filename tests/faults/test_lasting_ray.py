"""Does a team that is started again find the private Ray of the team before, unless that may be what it was lost by?"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import engine
from engine.recipes import Greedy, Recipe, Recovery
from engine.runtimes import Runtime, open_runtime
from engine.runtimes.ray.private import current
from engine.runtimes.ray.private.lifetime import PrivateRay
from engine.tasks import Metric
from engine.tracking import Record


class Fake:
    """What is asked of a private Ray here."""

    has_ended = False

    def __init__(self, *, is_well: bool = True) -> None:
        self.is_well, self.closed = is_well, 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_left_once_and_ended_where_nobody_takes_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = Fake()
    monkeypatch.setattr(current, "_current", fake)
    assert not current.leave_private_ray(), "outside of the block"
    with current.lasting_private_ray():
        assert current.leave_private_ray()
        assert current.take_over_private_ray()
        assert not current.take_over_private_ray()
        assert not current.leave_private_ray(), "a second time"
    assert not fake.closed
    with current.lasting_private_ray():
        assert current.leave_private_ray()
    assert fake.closed == 1 and current.current_private_ray() is None
    assert not current.take_over_private_ray()


def test_one_that_is_not_well_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = Fake(is_well=False)
    monkeypatch.setattr(current, "_current", fake)
    with current.lasting_private_ray():
        assert not current.leave_private_ray()
    assert not fake.closed, "it is up to those who have it"


class Killer:
    """A console that ends the processes of segment1 when it hears of certain steps, and notes each start of Ray."""

    def __init__(self, steps: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = list(steps)
        self.runtime: Any = None
        self.rays: list[PrivateRay | None] = []

        def opened(*arguments: Any) -> Runtime:
            self.runtime = open_runtime(*arguments)
            self.rays.append(current.current_private_ray())
            return self.runtime

        monkeypatch.setattr("engine.training.session.open_runtime", opened)
        monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, _: Metric) -> None:
        pass

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        if self.steps and step >= self.steps[0]:
            del self.steps[0]
            os.kill(self.runtime._actors.places["segment1"]["pid"], signal.SIGKILL)

    def message(self, text: str) -> None:
        pass


@pytest.mark.slow
def test_a_team_is_started_again_on_the_ray_that_it_had_and_on_another_where_that_was_in_vain(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2), epochs=12)
    undisturbed = engine.train(recipe, engine.Plan(executor="process"), tmp_path / "undisturbed")
    monkeypatch.setattr("engine.runtimes.ray.stream.bytes_kept_on_links", lambda *_: 0)  # nobody comes back alone
    others = set(psutil.Process().children(recursive=True))
    # Nothing is kept between: the second comes before the training has come further.
    killer: Any = Killer((6, 6, 18), monkeypatch)
    recovery = Recovery(max_failures=3, snapshot_every_steps=12)
    plan = engine.Plan(executor="ray", transport="direct", report_every_steps=2, recovery=recovery)
    result = engine.train(recipe, plan, tmp_path / "run", console=killer)
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert len(result.faults) == 3
    first, second, third, fourth = killer.rays
    assert first is second, "it was kept"
    assert second is not third, "the second failure in a row"
    assert third is fourth, "kept again, once the training has come further"
    assert None not in killer.rays
    assert current.current_private_ray() is None
    assert set(psutil.Process().children(recursive=True)) <= others

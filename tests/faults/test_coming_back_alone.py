"""Does a learner that is lost come back alone, while the others wait with what they know, to the same weights?"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.methods import Team
from engine.recipes import DML, Peer, Recipe, Recovery
from engine.runtimes import Runtime, open_runtime
from engine.runtimes.ray.actor_team import LearnerActors
from engine.tasks import Metric
from engine.tracking import Record, read_metrics
from engine.training import Result

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 3
EPOCHS = 12
NETWORK = """
from torch import nn

def network(num_classes, image_shape):
    width = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU()), nn.Linear(8, num_classes))
"""


def _plan(**changes: Any) -> engine.Plan:
    recovery = Recovery(max_failures=3, snapshot_every_steps=8)
    fields = {"checkpoint_every_steps": 1000, "report_every_steps": 3, "evaluate_every_epochs": 4}
    return engine.Plan(**{"transport": "object_store", "recovery": recovery, **fields, **changes})


class Killer:
    """A console that ends the processes of learners when it hears of certain steps."""

    def __init__(self, deaths: dict[int, Sequence[str]], monkeypatch: pytest.MonkeyPatch) -> None:
        self.deaths = dict(deaths)
        self.runtime: Any = None
        self.before: dict[str, int] = {}
        self.starts = 0

        def opened(*arguments: Any) -> Runtime:
            self.runtime = open_runtime(*arguments)
            self.before = self.processes()
            return self.runtime

        monkeypatch.setattr("engine.training.session.open_runtime", opened)
        monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)

    def processes(self) -> dict[str, int]:
        return {name: place["pid"] for name, place in self.runtime._actors.places.items()}

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, _: Metric) -> None:
        self.starts += 1

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        due = [at for at in self.deaths if step >= at]
        for name in [name for at in due for name in self.deaths.pop(at)]:
            os.kill(self.processes()[name], signal.SIGKILL)

    def message(self, text: str) -> None:
        pass


def _trained(recipe: Recipe, plan: engine.Plan, folder: Path, console: Any) -> tuple[Result, str]:
    result = engine.train(recipe, plan, folder, console=console)
    return result, (folder / "log.txt").read_text()


def _values(folder: Path) -> list[tuple[int, str | None, str, float]]:
    """Return all metrics but those that tell of time and memory."""
    wanted = ("loss", "accuracy", "learning_rate")
    return [(r.step, r.learner, r.name, r.value) for r in read_metrics(folder) if r.name.startswith(wanted)]


def _check_equal(result: Result, folder: Path, undisturbed: Result, undisturbed_folder: Path) -> None:
    assert result.status == "finished"
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert result.metrics == undisturbed.metrics
    assert len(_values(folder)) > 20
    assert _values(folder) == _values(undisturbed_folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"folder": tmp_path_factory.mktemp("undisturbed")}


def _undisturbed(known: dict[str, Any], recipe: Recipe) -> tuple[Result, Path]:
    if "result" not in known:
        known["result"] = engine.train(recipe, _plan(executor="process"), known["folder"])
    return known["result"], known["folder"]


@pytest.mark.parametrize(
    ("deaths", "transport"),
    [
        ({13: ["segment1"]}, "direct"),
        *(
            pytest.param(deaths, transport, marks=pytest.mark.slow)
            for deaths, transport in [
                ({13: ["segment1"]}, "object_store"),
                # One after the other.
                ({3: ["segment0"], 25: ["segment2"]}, "object_store"),
                ({3: ["segment0"], 25: ["segment2"]}, "direct"),
                # Two at once, that are linked and that are not.
                ({13: ["segment0", "segment2"]}, "object_store"),
                ({13: ["segment0", "segment1"]}, "direct"),
                # In the last steps; on direct links, see test_injected_faults.py.
                ({44: ["segment2"]}, "object_store"),
            ]
        ),
    ],
    ids=str,
)
def test_a_lost_segment_comes_back_while_the_others_wait(
    deaths: dict[int, list[str]],
    transport: str,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Any],
) -> None:
    recipe = tiny_recipe(epochs=EPOCHS)
    expected = _undisturbed(undisturbed, recipe)
    killer: Any = Killer(deaths, monkeypatch)
    lost = [name for names in deaths.values() for name in names]
    at_the_end: dict[str, int] = {}
    close = LearnerActors.close

    def note(actors: Any) -> None:
        at_the_end.update(killer.processes())
        close(actors)

    monkeypatch.setattr(LearnerActors, "close", note)
    result, log = _trained(recipe, _plan(transport=transport), tmp_path, killer)
    _check_equal(result, tmp_path, *expected)
    assert not killer.deaths, "somebody was killed"
    assert {name for name, process in killer.before.items() if at_the_end[name] != process} == set(lost)
    assert killer.starts == 1, "the team was not started again"
    assert log.count("it alone is started again") == len(lost) == len(result.faults)
    for fault, name in zip(sorted(result.faults, key=lambda each: (each.step, each.cause)), lost, strict=True):
        assert fault.cause.startswith(f"learner {name}: its process {killer.before[name]} died: ")
        assert "the same command" not in fault.cause
        # States are asked for after 8 steps, and known at the latest when two more questions were asked.
        assert 0 <= fault.repeated_steps <= 8 + 8
        assert 0 < fault.seconds_lost < result.seconds


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["object_store", "direct"])
def test_nobody_comes_back_from_a_newer_file_than_that_of_the_others(
    transport: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tmp_path / "net.py"
    net.write_text(NETWORK)
    recipe = tiny_recipe(epochs=EPOCHS, method=DML(), backbone={"name": f"{net}:network", "widths": None})

    class Editor(Killer):
        def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
            super().update(step, epoch, records)
            if not self.deaths:
                net.write_text(NETWORK.replace("ReLU", "Tanh"))

    killer = Editor({13: ["peer1"]}, monkeypatch)
    with pytest.raises(engine.RecipeError, match=f"^{net}: is another file on .* than this run's learners"):
        _trained(recipe, _plan(transport=transport), tmp_path / "run", killer)
    assert not killer.deaths, "somebody was killed"


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["object_store", "direct"])
def test_an_evaluation_that_gives_more_than_is_kept_hinders_nobody_in_training(
    transport: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(epochs=EPOCHS)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, evaluation_batch_size=512))
    expected = _undisturbed({"folder": tmp_path / "undisturbed"}, recipe)

    def just_enough(step_bytes: int, steps_in_flight: int) -> int:
        return 4 * step_bytes * steps_in_flight

    def just_enough_in_store(team: Team, plan: engine.Plan, _: int) -> int:
        step = max(program.bytes_per_step for program in team.training)
        assert team.evaluation.bytes_per_step > 30 * step
        return just_enough(step, plan.steps_in_flight(len(team.names)))

    monkeypatch.setattr("engine.runtimes.ray.stream.bytes_kept_on_links", just_enough)
    monkeypatch.setattr("engine.runtimes.ray.launch.history_bytes", just_enough_in_store)
    # Evaluations are after steps 16, 32 and 48.
    killer = Killer({16: ["segment0"], 25: ["segment2"], 32: ["segment1"]}, monkeypatch)
    result, log = _trained(recipe, _plan(transport=transport), tmp_path / "run", killer)
    _check_equal(result, tmp_path / "run", *expected)
    assert not killer.deaths and len(result.faults) == 3
    alone = [line for line in log.splitlines() if "it alone is started again" in line]
    assert any("learner segment2" in line for line in alone)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["object_store", "direct"])
def test_a_peer_of_a_cohort_comes_back_alone(
    transport: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(epochs=4, method=DML(peers=(Peer(), Peer())))
    undisturbed = engine.train(recipe, _plan(executor="process"), tmp_path / "undisturbed")
    killer = Killer({9: ["peer1"]}, monkeypatch)
    result, log = _trained(recipe, _plan(transport=transport), tmp_path / "run", killer)
    _check_equal(result, tmp_path / "run", undisturbed, tmp_path / "undisturbed")
    assert log.count("it alone is started again") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("why", "transport", "words"),
    [
        ("no room", "object_store", "the object store has no room for messages beside those in flight"),
        ("no room", "direct", "what a few steps give is more than the 2,048 MiB that are kept at most"),
        ("process groups", "direct", "what segment0 gives segment1 travels with NCCL"),
        ("it does not start again", "object_store", None),
        ("it does not start again", "direct", None),
    ],
)
def test_where_it_cannot_the_team_is_started_again(
    why: str,
    transport: str,
    words: str | None,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Any],
) -> None:
    if why == "no room":
        monkeypatch.setattr("engine.runtimes.ray.launch.history_bytes", lambda *_: 0)
        monkeypatch.setattr("engine.runtimes.ray.stream.bytes_kept_on_links", lambda *_: 0)
    if why == "process groups":
        monkeypatch.setattr("engine.runtimes.ray.launch.choose_way", lambda *_: "nccl")
    if why == "it does not start again":
        # Its second process ends before it has built anything.
        replace = engine.runtimes.ray.actor_team.LearnerActors.replace

        def fails(actors: Any, *arguments: Any) -> None:
            create = actors._bundles.create

            def create_and_kill(name: str, builder: Any) -> Any:
                handle = create(name, builder)
                handle.__ray_call__.remote(lambda _: os._exit(1))
                return handle

            monkeypatch.setattr(actors._bundles, "create", create_and_kill)
            replace(actors, *arguments)

        monkeypatch.setattr("engine.runtimes.ray.actor_team.LearnerActors.replace", fails)
    recipe = tiny_recipe(epochs=EPOCHS)
    expected = _undisturbed(undisturbed, recipe)
    killer = Killer({13: ["segment1"]}, monkeypatch)
    result, log = _trained(recipe, _plan(transport=transport), tmp_path, killer)
    _check_equal(result, tmp_path, *expected)
    assert killer.starts == 2
    assert len(result.faults) == 1, "one fault, however many ways of mending it were tried"
    assert log.count("the team is started again, from the") == 1
    assert ("it alone is started again" in log) == (why == "it does not start again")
    told = "a lost learner does not come back alone here, but with its whole team: "
    assert log.count(told) == (2 if words else 0)
    assert words is None or told + words in log

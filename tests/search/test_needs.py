"""Does a search ask for no more than its trials use, and start no more of them than there is room for?"""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from ray import tune

from engine.errors import PlanError
from engine.recipes import Plan
from engine.runtimes.ray.placement import choose_store
from engine.search import needs as needs_module
from engine.search.console import SweepConsole
from engine.search.definition import Sweep
from engine.search.folder import SweepFolder
from engine.search.needs import Needs
from engine.search.watching import Watcher

SMALL_SHARED_MEMORY = 64 * 2**20


@pytest.mark.parametrize(
    ("executor", "transport", "expected"),
    [("process", "auto", "direct"), ("ray", "auto", "direct"), ("ray", "object_store", "object_store")],
)
def test_trials_whose_messages_do_not_pass_through_it_need_little_shared_memory(
    executor: Literal["process", "ray"],
    transport: Literal["auto", "object_store"],
    expected: Literal["direct", "object_store"],
) -> None:
    sweep = Sweep(
        name="small",
        recipe="greedy_digits",
        space={"optimizer.learning_rate": tune.choice([0.1, 0.2])},
        searcher="random",
        scheduler="none",
        num_samples=2,
    )
    plan = Plan(executor=executor, transport=transport)
    needs = Needs(sweep, sweep.base(), plan)
    assert needs.transport == expected
    if expected == "direct":
        assert choose_store(plan, 2 * needs.store_bytes, SMALL_SHARED_MEMORY, needs.transport).on_disk


@pytest.mark.parametrize(
    ("gpus", "expected"),
    # Of four GPUs: halves of one, two thirds of one each, whole ones; three learners a trial.
    [(0.5, 2), (0.6, 1), (0.4, 2), (1.0, 1), (0.0, 5)],
)
def test_parts_of_several_gpus_do_not_add_up(gpus: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs_module, "private_node", lambda: {"CPU": 16.0, "GPU": 4.0})
    sweep = Sweep(
        name="shared",
        recipe="greedy_digits",
        space={"optimizer.learning_rate": tune.choice([0.1, 0.2])},
        fields=("method.num_segments=3",),
        searcher="random",
        scheduler="none",
        num_samples=9,
    )
    needs = Needs(sweep, sweep.base(), Plan(executor="ray", cpus_per_learner=1, gpus_per_learner=gpus))
    assert needs.at_once(None) == expected
    assert needs.at_once(1) == 1
    taken = f"3 CPU, {3 * gpus:g} GPU" if gpus else "3 CPU"
    assert needs.describe() == f"a trial takes {taken} of 16 CPU, 4 GPU"


def test_each_replica_has_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs_module, "private_node", lambda: {"CPU": 16.0})
    sweep = Sweep(
        name="replicas",
        recipe="greedy_digits",
        space={"method.num_segments": tune.choice([2, 3])},
        searcher="random",
        scheduler="none",
        num_samples=9,
    )
    once, twice = (Needs(sweep, sweep.base(), Plan(cpus_per_learner=1, replicas=replicas)) for replicas in (1, 2))
    assert once.describe() == "a trial takes 2 CPU or 3 CPU of 16 CPU"
    assert twice.describe() == "a trial takes 4 CPU or 6 CPU of 16 CPU"
    assert twice.at_once(None) == 4
    assert twice.store_bytes > once.store_bytes


@pytest.mark.parametrize(
    ("executor", "space", "said"),
    [
        ("process", {}, "plan.replicas=2, but plan.executor=process has one device; set plan.executor=ray"),
        ("ray", {"data.batch_size": tune.choice([50, 3])}, "lower plan.replicas, or change data.batch_size"),
    ],
)
def test_replicas_that_cannot_be_are_refused_before_anything_starts(executor: Any, space: Any, said: str) -> None:
    sweep = Sweep(name="r", recipe="greedy_digits", space={"epochs": tune.choice([1, 2]), **space}, num_samples=2)
    with pytest.raises(PlanError, match=said):
        Needs(sweep, sweep.base(), Plan(executor=executor, replicas=2))


def test_a_trial_whose_settings_make_no_network_together_fails_alone() -> None:
    space = {
        "method.num_segments": tune.choice([6, 1]),
        "backbone.name": tune.choice(["resnet14", "resnet8"]),
    }
    sweep = Sweep(name="apart", recipe="greedy_digits", space=space, num_samples=2)
    assert Needs(sweep, sweep.base(), Plan()).at_once(1) == 1


def test_settings_that_make_no_network_together_are_refused_as_they_are_drawn(tmp_path: Path) -> None:
    """Ray Tune asks for what a trial reserves, and what is raised then would end the search at every start."""
    space = {
        "method.num_segments": tune.choice([6, 1]),
        "backbone.name": tune.choice(["resnet14", "resnet8"]),
        "method.reconstruction_weight": tune.loguniform(0.1, 10),
    }
    sweep = Sweep(name="apart", recipe="infopro_digits", space=space, scheduler="none", num_samples=6)
    plan, stream, stop = Plan(cpus_per_learner=0.1), io.StringIO(), SimpleNamespace(requested=False)
    needs, folder = Needs(sweep, sweep.base(), plan), SweepFolder(sweep, sweep.base(), tmp_path / "s", "auto")
    watcher = Watcher(sweep, sweep.base(), plan, needs, folder, SweepConsole(stream), stop, False)  # type: ignore[arg-type]
    queue = watcher.watched(None)
    given = 0
    while (found := queue.suggest(f"t{given}")) is not None:
        needs.factory(found["settings"])
        given += 1
    folder.close()
    refused = [trial for trial in folder.trials.values() if trial.status == "failed"]
    impossible = {"method.num_segments": 6, "backbone.name": "resnet8"}
    assert refused and given == 6 - len(refused)
    assert all(impossible.items() <= trial.settings.items() for trial in refused)
    assert all("method.num_segments=6" in (trial.error or "") for trial in refused)
    assert stream.getvalue().count(" failed: ") == len(refused)


def test_a_trial_stays_on_its_node_also_where_others_join_later(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"CPU": 2.0, "node:10.0.0.1": 1.0, "node:__internal_head__": 1.0}
    views = SimpleNamespace(
        is_initialized=lambda: True,
        nodes=lambda: [{"NodeID": "here", "Alive": True, "Resources": node}],
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "here"),
    )
    monkeypatch.setattr(needs_module, "ray", views)
    monkeypatch.setattr(needs_module, "node_resources", lambda: [node])
    sweep = Sweep(
        name="s", recipe="greedy_digits", space={"optimizer.learning_rate": tune.choice([0.1])}, num_samples=1
    )
    for executor in ("process", "ray"):
        plan = Plan(executor=executor, address="auto")
        needs = Needs(sweep, sweep.base(), plan)
        assert needs.factory({"optimizer.learning_rate": 0.1}).bundles[0]["node:10.0.0.1"] == 0.001


@pytest.mark.parametrize(
    ("name", "small", "large"), [("data.batch_size", 20, 100), ("backbone.widths", [4, 8, 16], [16, 32, 64])]
)
def test_the_object_store_has_room_for_every_value_whichever_comes_first(name: str, small: Any, large: Any) -> None:
    def store_bytes(*values: Any) -> int:
        space, fields = {name: tune.choice([*values])}, ("data.evaluation_batch_size=10",)
        sweep = Sweep(name="s", recipe="greedy_digits", space=space, fields=fields, num_samples=2)
        return Needs(sweep, sweep.base(), Plan(transport="object_store")).store_bytes

    assert store_bytes(small, large) == store_bytes(large, small) == store_bytes(large) > store_bytes(small)

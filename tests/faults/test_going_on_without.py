"""Do the others of a cohort go on without a peer that is lost, until it is there again, and does the result say so?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.checkpoints import require_checkpoint
from engine.methods import method_of, networks_sha256
from engine.recipes import DML, EndToEnd, Peer, Recipe
from engine.runtimes import ProcessRuntime
from engine.tracking import read_metrics
from engine.training.session import Session
from tests.faults.test_coming_back_alone import Killer, _plan, _trained

RAY_CPUS = 4
MODES: dict[str, dict[str, Any]] = {
    "simultaneous": {},
    "sequential": {"schedule": "sequential"},
    "weights": {"schedule": "codistillation", "exchange": "weights", "exchange_interval": 2},
    "cut": {"peer_method": {"kind": "greedy", "num_segments": 2}, "local_weight": 0.5},
}


def _cohort(tiny_recipe: Callable[..., Recipe], peers: int, **fields: Any) -> Recipe:
    return tiny_recipe(epochs=8, method=DML(peers=tuple(Peer() for _ in range(peers)), on_loss="continue", **fields))


def _in_process(recipe: Recipe, away: int | None = None, from_step: int = 0, to_step: int = 0) -> dict[str, str]:
    """Return digests of the networks of a training in this process, in which one peer is away for some steps."""
    with Session(recipe, engine.Plan(executor="process")) as session:
        team, source = session.team, session.source
        steps = source.steps_per_epoch()
        runtime = ProcessRuntime(recipe, source.facts, team, steps)
        for step in range(2 * steps):
            program = team.program(step)
            if away is not None and from_step <= step < to_step:
                program = program.without(team.networks[f"peer{away}"].learners)
            runtime.submit(program, source.batch(*divmod(step, steps)))
        states = runtime.ask("state").result()
        facts = source.facts
        runtime.close()
        return {name: networks_sha256({name: network}, facts, states) for name, network in team.networks.items()}


@pytest.mark.parametrize("mode", MODES)
def test_two_without_the_third_are_a_cohort_of_two(mode: str, tiny_recipe: Callable[..., Recipe]) -> None:
    two = _in_process(_cohort(tiny_recipe, 2, **MODES[mode]))
    three = _cohort(tiny_recipe, 3, **MODES[mode])
    alone = _in_process(three, away=2, to_step=1000)
    assert {name: alone[name] for name in two} == two
    together = _in_process(three)
    assert together["peer0"] != alone["peer0"]
    # It returns in the midst, and teaches them from then on.
    returned = _in_process(three, away=2, from_step=1, to_step=4)
    assert len({each["peer0"] for each in (together, alone, returned)}) == 3
    assert len({each["peer2"] for each in (together, alone, returned)}) == 3


def test_one_that_is_left_learns_from_the_labels(tiny_recipe: Callable[..., Recipe]) -> None:
    left = _in_process(_cohort(tiny_recipe, 2), away=1, to_step=1000)
    method = EndToEnd()
    recipe = tiny_recipe(epochs=8, method=method)
    with Session(recipe, engine.Plan(executor="process")) as session:
        steps = session.source.steps_per_epoch()
        runtime = ProcessRuntime(recipe, session.source.facts, session.team, steps)
        for step in range(2 * steps):
            runtime.submit(session.team.program(step), session.source.batch(*divmod(step, steps)))
        states = runtime.ask("state").result()
        (network,) = session.team.networks.values()
        alone = networks_sha256({"peer0": network}, session.source.facts, states)
        runtime.close()
    assert left["peer0"] == alone


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("peers", "mode", "lost", "transport"),
    [
        pytest.param(2, "simultaneous", "peer1", "direct", marks=pytest.mark.slow),
        pytest.param(3, "sequential", "peer0", "object_store", marks=pytest.mark.slow),
        pytest.param(2, "cut", "peer0_segment0", "direct", marks=pytest.mark.slow),
    ],
)
def test_the_others_go_on_until_it_returns(
    peers: int,
    mode: str,
    lost: str,
    transport: str,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _cohort(tiny_recipe, peers, **MODES[mode])
    with Session(recipe, engine.Plan(executor="process")) as session:
        steps, networks = session.source.steps_per_epoch(), session.team.networks
    killer: Any = Killer({9: [lost]}, monkeypatch)
    plan = _plan(transport=transport, recovery=engine.Recovery(snapshot_every_steps=3), report_every_steps=1)
    result, log = _trained(recipe, plan, tmp_path, killer)
    peer = lost.split("_")[0]
    ((away, cause, since, until),) = [(a.network, a.cause, a.since, a.until) for a in result.absences]
    # The evaluation in the middle waits for it.
    assert (away, result.status) == (peer, "finished") and until is not None
    assert 0 < since <= until <= 4 * steps
    assert cause == f"learner {lost}: its process {killer.before[lost]} died: signal SIGKILL"
    assert killer.starts == 1, "the team was not started again"
    assert f"{cause}; the others go on without {peer}, which returns as it was after step {since:,}" in log
    assert f"{peer} takes part again, from step {until + 1:,} on" in log
    assert "these numbers are not those of an undisturbed run" in log
    assert [(each.cause, each.repeated_steps) for each in result.faults] == [(cause, 0)]
    reported: dict[str, set[int]] = {name: set() for each in networks.values() for name in each.learners}
    for record in read_metrics(tmp_path):
        if record.learner in reported and record.name == "learning_rate":
            assert record.step not in reported[record.learner], "no step twice"
            reported[record.learner].add(record.step)
    for network, each in networks.items():
        for name in each.learners:
            # The others trained in all steps, and it trained before and after.
            assert (reported[name] == set(range(1, 8 * steps + 1))) == (network != peer)
            assert set(range(until + 1, 8 * steps + 1)) <= reported[name]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["absences"] == [{"network": peer, "cause": cause, "since": since, "until": until}]
    assert require_checkpoint(tmp_path / "checkpoints").values["absences"] == summary["absences"]
    assert {f"peer{place}/test/accuracy" for place in range(peers)} <= result.metrics.keys()
    team = method_of(recipe).team(recipe, session.source.facts)
    states = require_checkpoint(tmp_path / "checkpoints").states
    assert result.weights_sha256 == networks_sha256(team.networks, session.source.facts, states)

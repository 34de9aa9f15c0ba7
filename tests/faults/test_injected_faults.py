"""Does a training into which real faults are put end with the weights of one without, and leave nothing?

Signals go to real processes at exact moments, see `experiments/faults`. `python -m experiments.benchmarks.faults` draws
hundreds of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.faults import disk
from experiments.faults import fault as faults
from experiments.faults.checking import HUNG, LEFT_OVER, LOST, REFUSED, RIGHT, check
from experiments.faults.fault import Case, disk_fault, draw_case, file_fault, learner_fault, process_fault
from experiments.faults.training import Ended, Trained, train_with_faults, undisturbed_weights

# A limit after which a command counts as hanging.
BOUND_SECONDS = 400.0
PHASES = {
    *(*faults.OF_STEPS, faults.SENDING, faults.CHECKPOINT, faults.EVALUATION),
    *(faults.BUILDING, faults.RECOVERING),
}

CASES = {
    "two at once, in the midst of a message": Case(
        "infopro_digits",
        "direct",
        (
            learner_fault("segment0", faults.KILL, faults.SENDING, 47),
            learner_fault("segment1", faults.KILL, faults.BEFORE_TAKING, 47),
        ),
    ),
    "a pause, and one without end": Case(
        "infopro_digits",
        "object_store",
        (
            learner_fault("segment0", faults.PAUSE, faults.AFTER_FORWARD, 33),
            learner_fault("segment1", faults.STOP, faults.BETWEEN, 77),
        ),
    ),
    "while it is built, and again while it recovers": Case(
        "infopro_digits",
        "direct",
        (
            learner_fault("segment0", faults.KILL, faults.BUILDING, 0),
            learner_fault("segment1", faults.KILL, faults.AFTER_UPDATE, 55),
            learner_fault("segment1", faults.KILL, faults.RECOVERING, 0),
        ),
    ),
    "the driver, half of a checkpoint written, and two that are damaged": Case(
        "infopro_digits",
        "object_store",
        (
            process_fault(faults.DRIVER, faults.KILL, faults.CHECKPOINT, 50),
            file_fault("tensors", faults.FLIP, 70),
            file_fault("state.json", faults.CUT, 90),
        ),
    ),
    "the GCS, a disk that fails, and a learner in the last step": Case(
        "infopro_digits",
        "direct",
        (
            process_fault(faults.GCS, faults.KILL, faults.SUBMITTING, 40),
            disk_fault(faults.FAILING, 80),
            learner_fault("segment1", faults.KILL, faults.AFTER_UPDATE, faults.STEPS),
        ),
    ),
    "a full disk, and a learner in an evaluation": Case(
        "infopro_digits",
        "object_store",
        (disk_fault(faults.FULL, 20), learner_fault("segment0", faults.KILL, faults.EVALUATION, 80)),
    ),
    "the node of a learner, and the driver on its cluster": Case(
        "infopro_digits",
        "object_store",
        (
            learner_fault("segment1", faults.NODE, faults.BETWEEN, 30),
            process_fault(faults.DRIVER, faults.KILL, faults.SUBMITTING, 75),
        ),
    ),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_training_with_faults(name: str, tmp_path: Path, undisturbed: Path) -> None:
    if not disk.is_possible() and any(fault.victim == faults.DISK for fault in CASES[name].faults):
        pytest.skip("a disk that takes nothing needs a C compiler here")
    trained = train_with_faults(CASES[name], tmp_path / "training", BOUND_SECONDS)
    checked = check(trained, undisturbed_weights(CASES[name], undisturbed))
    assert checked.problems == []
    assert set(checked.outcomes) == {RIGHT}


def test_each_kind_is_among_the_cases() -> None:
    every = [fault for case in CASES.values() for fault in case.faults]
    assert {fault.kind for fault in every} == set(faults.KINDS)
    assert {fault.phase for fault in every} >= PHASES


def test_a_seed_gives_the_same_faults_again() -> None:
    drawn = [draw_case(7, index) for index in range(200)]
    assert drawn == [draw_case(7, index) for index in range(200)]
    assert drawn[:50] != [draw_case(8, index) for index in range(50)]
    every = [fault for case in drawn for fault in case.faults]
    assert {fault.kind for fault in every} == set(faults.KINDS)
    assert {fault.victim for fault in every} >= {faults.DRIVER, faults.RAYLET, faults.GCS, faults.DISK, *faults.FILES}
    assert {fault.phase for fault in every} >= PHASES
    again = json.loads(json.dumps(drawn[0].to_json()))
    assert tuple(faults.Fault(**each) for each in again["faults"]) == drawn[0].faults


KILLED = learner_fault("segment1", faults.KILL, faults.AFTER_FORWARD, 5)
SEEN = "learner segment1: its process 12 died: signal SIGKILL; the team is started again\n"
RIGHT_ONE = Trained(
    Case("infopro_digits", "direct", (KILLED,)),
    [Ended(0.0, 90.0, 0, "", False, [])],
    {0: {"number": 0, "time": 20.0, "pid": 12, "builds": 2}},
    {"weights_sha256": "abc"},
    SEEN,
    "",
    {4: 19.0, 5: 32.5},
)


def _with_command(**changes: Any) -> Callable[[], Trained]:
    command = dataclasses.replace(RIGHT_ONE.commands[0], **changes)
    return lambda: dataclasses.replace(RIGHT_ONE, commands=[command])


def _refused(code: int, words: str) -> Trained:
    commands = [
        Ended(0.0, 30.0, code, f"local-learning: error: {words}", False, []),
        Ended(30.0, 90.0, 0, "", False, []),
    ]
    return dataclasses.replace(RIGHT_ONE, commands=commands)


@pytest.mark.parametrize(
    ("change", "outcome", "problem"),
    [
        (lambda: RIGHT_ONE, RIGHT, None),
        (lambda: dataclasses.replace(RIGHT_ONE, summary={"weights_sha256": "abd"}), LOST, "other weights"),
        (lambda: dataclasses.replace(RIGHT_ONE, log=""), LOST, "not seen: SIGKILL of segment1"),
        (lambda: dataclasses.replace(RIGHT_ONE, log=SEEN + SEEN.replace("12", "13")), LOST, "seen, but did not come"),
        (_with_command(left=["process 4 raylet"]), LEFT_OVER, "left over: process 4 raylet"),
        (_with_command(code=None), HUNG, "a command hung for 90 s"),
        (_with_command(code=1), LOST, "a command ended by itself: 1"),
        (_with_command(bug=True), LOST, "a traceback"),
        (lambda: _refused(2, "learner segment1: its process died"), LOST, "a command ended by itself: 2"),
        (lambda: _refused(3, "learner segment0: its process died"), LOST, "a command ended by itself: 3"),
        (lambda: _refused(3, "learner segment1: its process died"), REFUSED, None),
    ],
)
def test_what_is_wrong_is_found(change: Callable[[], Trained], outcome: str, problem: str | None) -> None:
    checked = check(change(), "abc")
    assert checked.outcomes == [outcome]
    assert any(line.startswith(problem) for line in checked.problems) if problem else checked.problems == []
    assert checked.seconds_lost == [12.5]


@pytest.mark.parametrize(("builds", "problems"), [(2, 0), (3, 1)])
def test_a_fault_hides_another_only_until_a_learner_is_built(builds: int, problems: int) -> None:
    """Also one that comes back alone, for which no team starts."""
    other = learner_fault("segment0", faults.KILL, faults.BETWEEN, 7)
    came = {0: RIGHT_ONE.came[0], 1: {"number": 1, "time": 40.0, "pid": 13, "builds": builds}}
    both = dataclasses.replace(RIGHT_ONE, case=Case("infopro_digits", "direct", (KILLED, other)), came=came)
    found = check(both, "abc").problems
    assert [line.startswith("not seen: SIGKILL of segment0") for line in found] == [True] * problems


@pytest.mark.parametrize(
    ("log", "problems"),
    [
        (("70", "90"), []),
        (("70", "70", "90"), []),
        (("70",), ["not seen: the damaged checkpoint of step 90"]),
        (("70", "90", "50"), ["seen, but did not come: a damaged checkpoint of step 50"]),
    ],
)
def test_every_damaged_checkpoint_is_seen(log: tuple[str, ...], problems: list[str]) -> None:
    case = Case(
        "infopro_digits", "direct", (file_fault("tensors", faults.FLIP, 70), file_fault("tensors", faults.CUT, 90))
    )
    came = {number: {"number": number, "time": 20.0, "pid": 12, "builds": 2} for number in range(2)}
    text = "".join(f"run/checkpoints/step-{step:>06}: damaged, skipped: segment0 has 4 bytes\n" for step in log)
    assert check(dataclasses.replace(RIGHT_ONE, case=case, came=came, log=text), "abc").problems == problems

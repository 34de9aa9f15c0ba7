"""Are the processes of a measurement asked, and ended with certainty, whatever they do?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from engine.benchmarking.baselines import launch
from engine.benchmarking.baselines.job import Job
from engine.benchmarking.baselines.launch import CaseFailed, Processes
from engine.benchmarking.batches import read_images
from engine.benchmarking.machine_load import LoadMeter
from engine.recipes import Plan, Recipe

READY = "import sys, time, json; job = json.loads(sys.stdin.readline()); print('{\"ready\": true}', flush=True)\n"
ECHO = READY + "for line in sys.stdin: print(json.dumps({'rank': job['rank'], **json.loads(line)}), flush=True)"
HANG = READY + "time.sleep(600)"
DIE = READY + "sys.stdin.readline(); sys.stderr.write('no more memory\\n'); sys.exit(7)"
ONE_FAILS = (
    READY + "sys.stdin.readline(); print('{\"error\": \"a cause\"}', flush=True) if job['rank'] else time.sleep(600)"
)
ALL_FAIL = READY + 'for line in sys.stdin: print(\'{"error": "a cause"}\', flush=True)'
BUSY = READY + (
    "sys.stdin.readline()\nwhile time.process_time() < 0.6: pass\nprint('{}', flush=True); sys.stdin.readline()"
)
WITH_CHILD = "import subprocess; subprocess.Popen(['sleep', '600']);" + ECHO

Start = Callable[[str], Processes]


@pytest.fixture
def start(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start two processes that run some code in place of the worker's, and see that none is left."""
    recipe = tiny_recipe()
    job = Job("pipelines", recipe, Plan(), read_images(recipe).facts, "", {}, workers=2)
    started: list[Processes] = []
    watched: list[psutil.Process] = []
    # Such as readers of pictures, which last as long as the thread that asks them.
    others = set(psutil.Process().children(recursive=True))

    def make(code: str) -> Processes:
        monkeypatch.setattr(launch, "_CODE", code)
        monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.5)
        started.append(Processes(job, ("cpu", "cpu"), {}))
        started[-1].ask(None, 30)
        watched.extend(set(psutil.Process().children(recursive=True)) - others)
        return started[-1]

    yield make
    for each in started:
        each.close()
    _, alive = psutil.wait_procs(watched, timeout=10)
    assert not alive


def test_every_process_answers_in_its_rank(start: Start) -> None:
    assert start(ECHO).ask({"do": "run"}, 30) == [{"rank": 0, "do": "run"}, {"rank": 1, "do": "run"}]


def test_a_job_arrives_as_it_was_sent(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    job = Job("pipelines", recipe, Plan(), read_images(recipe).facts, "file", {"a": {"b": 1}}, workers=2)
    assert Job.from_json(job.to_json()) == job


def test_a_process_that_does_not_answer_is_ended(start: Start) -> None:
    running, started = start(HANG), time.monotonic()
    with pytest.raises(CaseFailed, match="no answer within 0 seconds") as failed:
        running.ask({"do": "run"}, 0.2)
    assert failed.value.is_over
    assert time.monotonic() - started < 20


def test_a_process_that_dies_says_what_it_said(start: Start) -> None:
    with pytest.raises(CaseFailed, match="ended with exit code 7: no more memory") as failed:
        start(DIE).ask({"do": "run"}, 30)
    assert failed.value.is_over


def test_when_one_fails_those_that_wait_for_it_are_ended(start: Start) -> None:
    with pytest.raises(CaseFailed, match="^a cause$") as failed:
        start(ONE_FAILS).ask({"do": "run"}, 30)
    assert failed.value.is_over


def test_when_all_fail_alike_they_can_be_asked_again(start: Start) -> None:
    running = start(ALL_FAIL)
    for _ in range(2):
        with pytest.raises(CaseFailed, match="^a cause$") as failed:
            running.ask({"do": "run"}, 30)
        assert not failed.value.is_over


def test_what_a_process_started_ends_with_it(start: Start) -> None:
    start(WITH_CHILD).close()


def test_work_of_the_measured_of_those_that_wait_and_of_others_is_told_apart(start: Start) -> None:
    """One process is measured and works, its neighbour works though it should not, and nobody knows the rest."""
    busy = start(BUSY)
    meter = LoadMeter(busy.ids[:1])
    busy.ask({"do": "run"}, 60)
    load = meter.result()
    assert load.waiting > 0.1
    assert LoadMeter(busy.ids).result().waiting < load.waiting

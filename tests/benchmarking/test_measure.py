"""Does `local-learning measure` compare like with like, say what it found, and refuse what is wrong?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.benchmarking import measuring, settings_search
from engine.benchmarking.baselines.job import Job, Kind
from engine.benchmarking.baselines.launch import Processes
from engine.benchmarking.batches import Images, read_images
from engine.benchmarking.case_results import best_of
from engine.cli.main import main
from engine.recipes import EndToEnd, Plan, Recipe, plan_to_dict, recipe_to_dict

TINY = ("greedy_digits", "data.train_limit=96", "data.test_limit=10", "data.batch_size=16")
SHOWN = ("process", "ddp")
QUICK = ("--rounds", "2", "--steps", "2", "plan.executor=process")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against", "ddp,fsdpp"), "--against fsdpp: there is no such baseline; did you mean 'fsdp'?"),
        (("--k", "1,99"), "method.num_segments=99, but resnet14 has 7 blocks that can end a segment: use 1..7."),
        (("--k", "0"), "--k 0: expected numbers of segments from 1 on, such as --k 1,2,4"),
        (("--k", "two"), "--k two: expected numbers of segments, at most 65,536, such as --k 1,2,4"),
        (("--k", "2", "method.kind=dml"), "--k 2: method.kind=dml does not cut the network into segments"),
        (("--rounds", "0"), "--rounds 0: expected 1 to 1000"),
        (("--steps", "5000"), "--steps 5000: expected 1 to 200"),
        (("numerics.threads=1000",), "numerics.threads=1000, but there are"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", *TINY, *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_one_command_gives_a_table_numbers_pictures_and_timelines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # That the search is thorough, and runs finalists again, is the business of test_pipeline_search.py, as are other
    # schedules.
    monkeypatch.setattr(settings_search, "_MOST_NEIGHBOURS", 0)
    monkeypatch.setattr(settings_search, "_FINALISTS", 1)
    # Each case whose memory is measured starts processes of its own: one that is alone, and one of two workers.
    monkeypatch.setattr(measuring, "best_of", lambda rows: [row for row in best_of(rows) if row.case.family in SHOWN])
    words = ["--k", "1,2", "--against", "gpipe,checkpoint,ddp,fsdp", "--out", str(tmp_path / "out"), "--json"]
    assert main(["measure", *TINY, *QUICK, *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    cases = {case["name"]: case for case in found["ways"]}
    families = {case["family"] for case in cases.values()}
    own, pipelines = {"end_to_end", "process"}, {"gpipe"}
    assert families == own | pipelines | {"checkpoint", "ddp", "fsdp"}, found["left_out"]
    searched = {search["name"]: search for search in found["searches"]}
    for case in cases.values():
        if case["family"] in pipelines:
            assert case["chosen"] and {"schedule", "micro_batches", "bounds"} == set(case["settings"])
    for name in ("GPipe, 2 workers", "checkpointing, 2 threads", "FSDP2, 2 workers"):
        tried = [each["milliseconds"] for each in searched[name]["attempts"]]
        assert len(tried) > 2 and all(each > 0 for each in tried)
    assert found["blocks"][-1] == "classifier" and set(found["block_milliseconds"]) == {"1", "2", "4", "8"}
    assert found["baseline"] == "end to end, one device, 1 thread"
    baseline = cases[found["baseline"]]
    for case in cases.values():
        assert len(case["milliseconds"]) == found["rounds"] == 2
        assert case["same_initial_weights"]
        assert case["saved_activations"] > 0
        assert case["resident_bytes"] is None or (case["resident_bytes"] >= 0 and case["family"] in SHOWN)
        low, high = case["times_end_to_end"]["low"], case["times_end_to_end"]["high"]
        assert low <= case["times_end_to_end"]["median"] <= high
        assert all(0 <= share <= 1 for share in case["waiting_share"])
    assert baseline["times_end_to_end"] == {"median": 1, "low": 1, "high": 1}
    # Half of the images, and so half of the activations but for a few numbers for each channel.
    assert cases["DDP, 2 workers"]["saved_activations"] == pytest.approx(baseline["saved_activations"] / 2, rel=0.02)
    assert cases["greedy, K = 2, in process"]["saved_activations"] < baseline["saved_activations"]
    checkpointing = [case for case in cases.values() if case["family"] == "checkpoint"]
    assert {case["threads"] for case in checkpointing} == {1, 2}
    assert all(case["saved_activations"] < baseline["saved_activations"] for case in checkpointing)
    same_loss = [case["first_loss"] for case in cases.values() if case["family"] in ("end_to_end", "checkpoint")]
    assert len({loss for losses in same_loss for loss in losses.values()}) == 1
    assert {each["num_segments"] for each in found["simulated"]} == {2, 4}
    assert "resnet14 has 7 blocks" in found["left_out"]["greedy, K = 8, in process, for the simulation"]
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == sorted(found["files"])
    assert json.loads((folder / "measure.json").read_text())["ways"] == found["ways"]
    table = (folder / "measure.md").read_text()
    assert "simulated, not measured" in table and "left out: this engine on Ray" in table
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("measure.png", "timeline.png"))
    events = json.loads((folder / "timeline.json").read_text())["traceEvents"]
    assert {event["name"] for event in events if event["ph"] == "X"} == {"forward", "update"}


@pytest.mark.slow
def test_a_cohort_is_measured_in_process_and_on_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*TINY, "method.kind=dml", "--rounds", "1", "--steps", "2", "--out", str(tmp_path), "--json")
    assert main(["measure", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    cases = {case["family"]: case for case in found["ways"]}
    assert cases["ray"]["workers"] == 2 and len(cases["ray"]["waiting_share"]) == 2
    assert cases["ray"]["first_loss"] == cases["process"]["first_loss"]
    assert "trains several networks" in found["left_out"]["1F1B"]


@pytest.fixture
def images(tiny_recipe: Callable[..., Recipe]) -> Images:
    return read_images(tiny_recipe(method=EndToEnd()))


Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def trained(images: Images, tmp_path: Path) -> Iterator[Ask]:
    """Train four steps in some processes; returns their first answers with ``weights`` as they are afterwards."""
    images.batches.write(tmp_path / "batches.npz")
    started: list[Processes] = []

    def train(kind: Kind, settings: Mapping[str, Any], workers: int) -> list[dict[str, Any]]:
        job = Job(kind, images.recipe, Plan(), images.facts, str(tmp_path / "batches.npz"), {"case": settings}, workers)
        started.append(Processes(job, ["cpu"] * workers, {"OMP_NUM_THREADS": "1"}))
        started[-1].ask(None, 200)
        answers = started[-1].ask({"do": "prepare", "case": "case"}, 200)
        started[-1].ask({"do": "run", "case": "case", "steps": 2}, 200)
        after = started[-1].ask({"do": "digests", "case": "case"}, 200)
        return [{**before, "before": before["weights"], **then} for before, then in zip(answers, after, strict=True)]

    yield train
    for each in started:
        each.close()


def merged(answers: list[dict[str, Any]], what: str) -> dict[str, Any]:
    return {name: value for answer in answers for name, value in answer[what].items() if value is not None}


@pytest.mark.slow
def test_where_the_mathematics_is_the_same_peers_train_the_same_weights_bit_for_bit(
    trained: Ask, images: Images
) -> None:
    """With one micro-batch, or one worker, nothing is divided but the place of the work."""
    plan = plan_to_dict(Plan(executor="process"))
    engine = trained("engine", {"recipe": recipe_to_dict(images.recipe), "plan": plan}, 1)
    (loss,) = merged(engine, "first_loss").values()
    for kind, settings, workers in (
        ("pipelines", {"schedule": "gpipe", "micro_batches": 1, "bounds": [0, 4, 8]}, 2),
        ("checkpointing", {"chunks": 3}, 1),
        ("data_parallel", {"sharded": False, "bucket_mib": 25}, 1),
    ):
        baseline = trained(kind, settings, workers)
        assert len(baseline) == workers
        assert list(merged(baseline, "first_loss").values()) == [loss], kind
        assert merged(baseline, "before") == merged(engine, "before"), kind
        assert merged(baseline, "weights") == merged(engine, "weights"), kind
    assert merged(engine, "before") != merged(engine, "weights")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_no_process_is_left(tmp_path: Path, how: signal.Signals) -> None:
    """Ray included, whose processes belong to a process that the measurement started."""
    words = [*TINY, "--k", "2", "--against", "ddp", "--rounds", "50", "--steps", "5", "--out", str(tmp_path / "out")]
    code = "import sys; from engine.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with (tmp_path / "said").open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", code, "measure", *words],
            stderr=said,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    try:
        deadline = time.monotonic() + 480
        while b"round 1 of 50: DDP" not in (tmp_path / "said").read_bytes():
            assert child.poll() is None and time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.1)
        below = psutil.Process(child.pid).children(recursive=True)
        assert len(below) > 6
        child.send_signal(how)
        assert child.wait(60) == (130 if how == signal.SIGINT else -signal.SIGKILL)
        deadline = time.monotonic() + 120
        while (left := list(filter(_lives, below))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, left
    finally:
        child.kill()
        child.wait()


def _lives(process: psutil.Process) -> bool:
    try:
        # What has ended may wait long for the machine's first process to ask how.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

"""Does a result say what happened, and is summary.json the same?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine.methods import Network
from engine.recipes import Backbone, EndToEnd, Recipe
from engine.tasks import ACCURACY, ClassificationTask
from engine.tasks.metric import LOSS, Metric
from engine.tracking import Record, read_metrics
from engine.training import evaluate, load, weights_sha256
from engine.training.reports import best_scores
from engine.training.result import SUMMARY_VERSION, BestScore

IN_PROCESS = engine.Plan(executor="process")


def test_a_finished_run(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    result = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert (result.status, result.epochs, result.steps, result.run_dir) == ("finished", 2, 8, tmp_path)
    assert result.test_score == result.metrics["test/accuracy"]
    last = {record.name: record.value for record in read_metrics(tmp_path) if record.split == "test"}
    assert result.metrics == {f"test/{name}": value for name, value in last.items()}
    assert set(result.peak_memory_bytes) == set(result.waiting_share) == {"segment0", "segment1", "segment2"}
    for learner, parts in result.memory_parts.items():
        assert parts["total"] == result.peak_memory_bytes[learner]
        assert parts["total"] == sum(size for name, size in parts.items() if name != "total")
    assert all(0 <= share <= 1 for share in result.waiting_share.values())
    assert result.images_per_second is not None
    assert result.images_per_second > 0
    run = load(tmp_path)
    assert result.weights_sha256 == weights_sha256(run.network().state_dict())
    assert evaluate(run) == result.metrics


def test_summary_is_the_result(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    result = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"version": SUMMARY_VERSION, **result.to_json()}
    assert engine.Result.from_json(summary, tmp_path) == result


def test_a_folder_that_was_moved_gives_a_result_with_its_new_place(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path / "new").run_dir == tmp_path / "new"


def test_an_interrupted_run(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(3)
    result = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert (result.status, result.epochs, result.steps, result.test_score) == ("interrupted", 0, 3, None)
    assert result.metrics == {}
    assert load(tmp_path).checkpoint.step == 3
    assert (tmp_path / "metrics.parquet").is_file()


def test_interrupted_after_an_epoch_has_its_score(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(4)
    result = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert result.status == "interrupted"
    assert result.test_score is not None
    interrupt_at(5)
    again = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert again.test_score == result.test_score


def test_the_seed_decides(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    digests = [
        engine.train(tiny_recipe(method=EndToEnd(), seed=seed), IN_PROCESS, tmp_path / name).weights_sha256
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.usefixtures("pictures")
def test_what_a_run_folder_holds(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path)
    names = {path.name for path in tmp_path.iterdir() if "tfevents" not in path.name}
    assert names == {
        ".lock",
        "checkpoints",
        "curves.png",
        "data.json",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "metrics.parquet",
        "plan.json",
        "recipe.json",
        "summary.json",
    }
    assert len(list(tmp_path.glob("*tfevents*"))) == 1
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def pictures() -> None:
    """Ask for curves.png, which the other tests leave out."""


def test_a_score_that_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    metrics = {"a": math.nan, "b": 0.5}
    result = engine.Result(
        tmp_path, "finished", 1, 4, "accuracy", 0.5, metrics, None, {}, {}, {}, 9, 9, "0" * 64, {}, 1.5
    )
    stored = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert stored["metrics"] == {"a": None, "b": 0.5}
    again = engine.Result.from_json(stored, tmp_path).metrics
    assert math.isnan(again["a"]) and again["b"] == 0.5


def test_a_summary_of_before_other_headlines_is_read(tmp_path: Path) -> None:
    """As version 0.1.0 has written it."""
    values = {
        "run_dir": "/elsewhere",
        "status": "finished",
        "epochs": 2,
        "steps": 8,
        "test_accuracy": 0.75,
        "metrics": {"test/accuracy": 0.75, "test/loss": 0.5},
        "images_per_second": 812.5,
        "waiting_share": {"segment0": 0.25},
        "peak_memory_bytes": {"segment0": 4096},
        "memory_parts": {"segment0": {"parameters": 4096, "total": 4096}},
        "deployed_parameters": 1024,
        "trained_parameters": 2048,
        "weights_sha256": "0" * 64,
        "diverged": {},
        "seconds": 3.5,
        "warnings": [],
    }
    result = engine.Result.from_json(values, tmp_path)
    assert (result.headline, result.test_score) == ("accuracy", 0.75)
    assert (result.to_json()["headline"], result.to_json()["test_score"]) == ("accuracy", 0.75)
    assert engine.Result.from_json({**values, "test_accuracy": None}, tmp_path).test_score is None
    del values["test_accuracy"]
    with pytest.raises(engine.RunError, match=r"summary\.json"):
        engine.Result.from_json(values, tmp_path)


def test_a_task_with_another_headline_is_judged_by_it(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassificationTask, "headline", LOSS)
    result = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert (result.headline, result.test_score) == ("loss", result.metrics["test/loss"])
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path) == result


def test_the_best_epoch_is_that_of_the_records_also_of_an_earlier_command(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe = tiny_recipe(epochs=3, data={"validation_fraction": 0.1})
    first = engine.train(recipe, IN_PROCESS, tmp_path, until_step=6)
    assert first.best == {
        split: BestScore(first.metrics[f"{split}/accuracy"], 1, is_last=True) for split in ("validation", "test")
    }
    records = tmp_path / "metrics.jsonl"
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    for row in rows:
        if (row["split"], row["name"]) == ("test", "accuracy"):
            row["value"] = 2.0  # What no later epoch can reach.
    records.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    result = engine.train(recipe, IN_PROCESS, tmp_path)
    assert result.best["test"] == BestScore(2.0, 1, is_last=False)
    scored = {r.epoch: r.value for r in read_metrics(tmp_path) if (r.split, r.name) == ("validation", "accuracy")}
    assert list(scored) == [1, 2, 3]
    best = result.best["validation"]
    assert best.score == max(scored.values()) == scored[best.epoch]
    assert best.is_last == (best.epoch == 3)
    assert engine.train(recipe, IN_PROCESS, tmp_path) == result
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best"]["test"] == {"score": 2.0, "epoch": 1, "is_last": False}
    with pytest.raises(engine.RunError, match=r"summary\.json"):
        engine.Result.from_json({**summary, "best": {"test": {"score": "high", "epoch": 1}}}, tmp_path)
    del summary["best"]
    assert engine.Result.from_json(summary, tmp_path).best == {}


def test_the_best_epoch_of_a_cohort_is_that_of_the_mean_of_who_is_left() -> None:
    networks = {name: Network(Backbone(name="resnet14"), (name,), 10) for name in ("peer0", "peer1")}
    values = {"peer0": (0.5, 0.75, 0.25), "peer1": (0.5, 0.25, 0.875), "ensemble": (0.25, 1.0, 0.5)}
    records = [
        Record(0.0, epoch, 4 * epoch, name, "test", "accuracy", value)
        for name, scores in values.items()
        for epoch, value in enumerate(scores, start=1)
    ]
    assert best_scores(records, networks, {}, ACCURACY) == {"test": BestScore(0.5625, 3, is_last=True)}
    assert best_scores(records, networks, {"peer1"}, ACCURACY) == {"test": BestScore(0.75, 2, is_last=False)}
    assert best_scores(records, networks, {"peer0"}, ACCURACY) == {"test": BestScore(0.875, 3, is_last=True)}


def test_of_equal_epochs_the_last_is_best_and_what_is_not_finite_never_is() -> None:
    networks = {"network": Network(Backbone(name="resnet14"), ("segment0",), 10)}

    def best(*values: float, headline: Metric = ACCURACY) -> dict[str, BestScore]:
        scored = enumerate(values, start=1)
        found = [Record(0.0, epoch, epoch, None, "validation", headline.name, value) for epoch, value in scored]
        trained = Record(0.0, 1, 1, "segment0", "train", headline.name, 9.0)
        return best_scores([trained, *found], networks, {}, headline)

    assert best(0.5, 0.75, 0.75, 0.5) == {"validation": BestScore(0.75, 3, is_last=False)}
    assert best(0.5, 0.75, math.nan) == {"validation": BestScore(0.75, 2, is_last=False)}
    assert best(0.5, 0.25, 1.0, headline=LOSS) == {"validation": BestScore(0.25, 2, is_last=False)}
    assert best(math.nan) == best() == {}

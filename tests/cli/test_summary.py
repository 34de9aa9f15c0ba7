"""Is the end of a training told in a few lines, one for each peer, each number with its unit?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine import Result
from engine.cli.summary import scores_of, summary_lines
from engine.tasks import ACCURACY
from engine.tracking.scores import score_in_words
from engine.training import BestScore


def result(metrics: dict[str, float], memory: dict[str, int], diverged: dict[str, str] | None = None) -> Result:
    return Result(
        run_dir=Path("my runs/one"),
        status="finished",
        epochs=2,
        steps=1200,
        headline="accuracy",
        test_score=0.5,
        metrics=metrics,
        images_per_second=2345.6,
        waiting_share={},
        peak_memory_bytes=memory,
        memory_parts={},
        deployed_parameters=10,
        trained_parameters=12,
        weights_sha256="0",
        diverged=diverged or {},
        seconds=12.0,
    )


def cohort(split: str, shift: float = 0.0) -> dict[str, float]:
    found = {}
    # As training orders them: the first peer's learner answers for all together, too.
    for name, accuracy in (("peer0", 0.75), ("ensemble", 0.875), ("peer1", 0.0625)):
        found |= {f"{name}/{split}/accuracy": accuracy + shift, f"{name}/{split}/top5_accuracy": 1.0}
        found |= {f"{name}/{split}/loss": 1.25, f"{name}/{split}/images": 1297.0}
    scores = {"accuracy_gap": 0.6875, "kl_between_peers": 0.5, "disagreement": 0.25}
    return found | {f"ensemble/{split}/{name}": value for name, value in scores.items()}


END = [
    "time                  12 s",
    "run folder            'my runs/one'",
    "curves                'my runs/one/curves.png'",
    "TensorBoard           tensorboard --logdir 'my runs/one'",
]


def test_a_cohort_has_one_line_for_each_peer() -> None:
    lines = summary_lines(
        result(cohort("test"), {"peer0": 2048, "peer1": 1024}, {"peer1": "its loss is nan"}), ACCURACY
    )
    assert lines == [
        "finished              2 epochs, 1,200 steps",
        "accuracy of peer0     test 75.00 %",
        "accuracy of peer1     test  6.25 %",
        "accuracy of ensemble  test 87.50 %",
        "accuracy gap          test 68.75 points",
        "KL between peers      test 0.5000 nats",
        "peer1 left            its loss is nan",
        "images/s              2,346",
        "peak memory of peer0  2.00 KiB",
        "peak memory of peer1  1.00 KiB",
        *END,
    ]


def test_two_splits_share_a_line() -> None:
    lines = summary_lines(result(cohort("validation", 0.125) | cohort("test"), {}), ACCURACY)
    assert lines[1:6] == [
        "accuracy of peer0     validation 87.50 %, test 75.00 %",
        "accuracy of peer1     validation 18.75 %, test  6.25 %",
        "accuracy of ensemble  validation 100.00 %, test 87.50 %",
        "accuracy gap          validation 68.75 points, test 68.75 points",
        "KL between peers      validation 0.5000 nats, test 0.5000 nats",
    ]


def test_one_network_is_told_as_before() -> None:
    metrics = {"validation/accuracy": 0.5, "test/accuracy": 0.75, "test/top5_accuracy": 1.0, "test/loss": 0.5}
    lines = summary_lines(result(metrics, {"segment0": 2048}), ACCURACY)
    assert [line.split("  ")[0] for line in lines[:6]] == [
        "finished",
        "validation accuracy",
        "test accuracy",
        "test top5_accuracy",
        "images/s",
        "peak memory of segment0",
    ]
    assert lines[2].split() == ["test", "accuracy", "75.00", "%"]


def test_the_best_epoch_is_told_if_it_is_not_the_last_and_what_chose_it() -> None:
    def told(metrics: dict[str, float], **best: BestScore) -> list[str]:
        lines = summary_lines(dataclasses.replace(result(metrics, {}), best=best), ACCURACY)
        return [line for line in lines if line.startswith("best")]

    one, last = BestScore(0.9125, 7, is_last=False), BestScore(0.75, 20, is_last=True)
    metrics = {"validation/accuracy": 0.5, "test/accuracy": 0.75}
    on_validation = "best on validation   91.25 % after epoch 7 (chosen on validation images)"
    assert told(metrics, validation=one, test=last) == [on_validation]
    assert told(metrics, validation=one, test=one) == [on_validation]
    assert told(metrics, validation=last, test=one) == told(metrics, test=last) == told(metrics) == []
    del metrics["validation/accuracy"]
    (line,) = told(metrics, test=one)
    assert line.removeprefix("best on test").strip() == (
        "91.25 % after epoch 7 (chosen on the test images: not a fair estimate)"
    )
    (line,) = told(cohort("test"), test=one)
    assert "91.25 %, the mean of the networks, after epoch 7 (chosen" in line


def test_many_learners_are_no_wall_of_numbers() -> None:
    memory = {f"peer{p}_segment{k}": 1024 * (k + 1) for p in range(4) for k in range(4)}
    lines = summary_lines(result(cohort("test"), memory), ACCURACY)
    (told,) = [line for line in lines if "memory" in line]
    assert told.removeprefix("peak memory").strip() == "up to 4.00 KiB (peer0_segment3), over 16 learners"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("accuracy", 0.5, "50.00 %"),
        ("top5_accuracy", 1.0, "100.00 %"),
        ("disagreement", 0.125, "12.50 %"),
        ("accuracy_gap", 0.125, "12.50 points"),
        ("kl_between_peers", 0.125, "0.1250 nats"),
        ("loss", 0.5, "0.5000"),
        ("log_odds_of_accuracy", 1.5, "1.5000"),
        ("images", 1297.0, "1,297"),
        ("loss", float("nan"), "nan"),
        ("accuracy", float("inf"), "inf"),
    ],
)
def test_only_shares_are_percentages(name: str, value: float, words: str) -> None:
    assert score_in_words(ACCURACY, name, value) == words


def test_scores_are_sorted_by_split_and_network_the_ensemble_last() -> None:
    found = scores_of(cohort("test") | {"validation/accuracy": 0.5})
    assert list(found) == ["test", "validation"]
    assert list(found["test"]) == ["peer0", "peer1", "ensemble"]
    assert found["test"]["ensemble"]["kl_between_peers"] == 0.5
    assert found["validation"] == {None: {"accuracy": 0.5}}

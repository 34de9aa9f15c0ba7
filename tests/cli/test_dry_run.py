"""Does `train --dry-run` show the programs, learners and places, and write nothing?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

WORDS = ("train", "infopro_digits", "method.num_segments=3", "--dry-run")


def test_nothing_is_written(command: Any) -> None:
    assert command(*WORDS, "--on", "process").code == 0
    assert command(*WORDS).code == 0
    assert list(Path().iterdir()) == []


def test_programs_learners_and_sizes_are_shown(command: Any) -> None:
    answer = command(*WORDS, "--on", "process")
    for said in (
        "source next -> batch",
        "segment1 forward(batch, features0) -> features1",
        "50x4x8x8 float32 = 51,200 bytes",
        "segment2 score(batch, features1)",
        "layer1_1 to layer2_1",
        "parameters",
        "all learners in turn in this process",
        "500 train, 1,297 test",
    ):
        assert said in answer.out


def test_a_cut_that_is_measured_when_the_training_starts_is_said_to_be(command: Any) -> None:
    answer = command(*WORDS, "method.cuts=measured", "--on", "process")
    said = "cuts: method.cuts=measured is chosen by timing when the training starts; below is balanced_time"
    assert said in answer.out
    modelled = command(*WORDS, "method.cuts=balanced_time", "--on", "process")
    assert answer.out.partition("learners:")[2] == modelled.out.partition("learners:")[2]
    assert command(*WORDS, "method.cuts=measured", "--json").json["recipe"]["method"]["cuts"] == "measured"


def test_the_optimizer_and_the_learning_rates_are_shown(command: Any) -> None:
    answer = command(*WORDS, "schedule.kind=polynomial", "schedule.power=1", "schedule.minimum=0.05", "epochs=1")
    assert "  optimizer: sgd, learning rate 0.1, weight decay 0.0005, Nesterov momentum 0.9\n" in answer.out
    # 10 steps: a tenth of the way is left before the last.
    assert "  schedule: polynomial, learning rate 0.1 in the first step, 0.055 in the last\n" in answer.out
    assert "caution" not in answer.out
    adam = command(*WORDS, "optimizer.kind=adamw", "optimizer.learning_rate=0.01")
    assert "  optimizer: adamw, learning rate 0.01, weight decay 0.0005, betas 0.9 and 0.999\n" in adam.out


def test_a_peer_with_an_optimizer_of_its_own_is_named(command: Any) -> None:
    words = ("train", "dml_digits", "--dry-run", "--on", "process")
    given = command(*words, 'method.peers=[{}, {"optimizer": {"kind": "rmsprop"}}]', "schedule.kind=constant")
    assert "  optimizer: sgd, learning rate 0.1," in given.out
    assert "  optimizer of peer1: rmsprop, learning rate 0.01, weight decay 0, momentum 0\n" in given.out
    assert "  schedule of peer1: constant, learning rate 0.01 in the first step, 0.01 in the last\n" in given.out


def test_what_the_training_would_warn_of_is_shown(command: Any) -> None:
    words = (*WORDS, "schedule.interval=epoch", "epochs=2", "--on", "process")
    assert "  caution: the last of epochs=2 runs at a learning rate of 0" in command(*words).out
    values = command(*words, "--json").json
    assert len(values["cautions"]) == 1
    assert values["learning_rates"] == {"all": {"first": pytest.approx(0.05), "last": 0.0}}


def test_the_same_as_json(command: Any) -> None:
    values = command(*WORDS, "--on", "process", "--json", "seed=7").json
    assert values["recipe"]["seed"] == 7
    assert values["plan"]["executor"] == "process"
    assert values["total_steps"] == 150
    assert values["finished_steps"] == 0
    assert [learner["name"] for learner in values["learners"]] == ["segment0", "segment1", "segment2"]
    assert values["learners"][0]["blocks"] == ["stem", "layer1_0"]
    assert values["learners"][2]["auxiliary_parameters"] == 0
    (training,) = values["training"]
    assert training["bytes_per_step"] == sum(message["bytes"] for message in training["messages"].values())
    # 500 images of 1x8x8 bytes, int64 labels and indices; features of 4x8x8 and 8x4x4 float32: by hand.
    assert training["bytes_per_step"] == 50 * (64 + 8 + 8) + 50 * 4 * (4 * 8 * 8 + 8 * 4 * 4)
    assert training["calls"][1] == {
        "learner": "segment0",
        "phase": "forward",
        "takes": ["batch"],
        "gives": ["features0"],
    }
    assert values["placement"]["executor"] == "process"
    assert values["data"]["class_names"] == list("0123456789")
    assert values["data"]["pictures"]["train"]["all"] == 500


def test_what_was_found_of_the_data_is_shown(command: Any) -> None:
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            folder = Path("pictures", split, label)
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (8, 8)).save(folder / f"{index}.png")
    Path("pictures/train/dog/notes.txt").write_text("x")
    words = ("data.name=folder", "data.root=pictures", "data.batch_size=4", "--on", "process")
    answer = command(*WORDS, *words)
    assert answer.code == 0
    for said in (
        "train from train/: 8 pictures, 4 in each class",
        "test from val/: 8 pictures, 4 in each class",
        "2 classes, named by their folders: cat, dog",
        "not used: 1 files that are no pictures by name or content (train/dog/notes.txt)",
    ):
        assert said in answer.out
    trained = command("train", "infopro_digits", *words, "epochs=1", "--run-dir", "run")
    assert trained.code == 0
    assert "train from train/: 8 pictures, 4 in each class" in trained.err
    stored = json.loads(Path("run/data.json").read_text())
    assert stored == command(*WORDS, *words, "--json").json["data"]
    assert stored["left_out"] == [
        {"reason": "files that are no pictures by name or content", "number": 1, "examples": ["train/dog/notes.txt"]}
    ]


def test_a_placement_on_ray_is_shown_without_starting_it(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("a dry run starts no Ray"))
    answer = command(*WORDS, "plan.cpus_per_learner=0.25", "plan.window=5")
    assert answer.code == 0
    assert "3 actors with 0.25 CPU each, PACK, window 5" in answer.out
    placement = command(*WORDS, "plan.cpus_per_learner=0.25", "plan.window=5", "--json").json["placement"]
    assert (placement["actors"], placement["cpus"], placement["window"]) == (3, 0.25, 5)
    assert placement["object_store_bytes"] > 6 * 827_392


def test_a_plan_that_does_not_fit_is_refused(command: Any) -> None:
    answer = command(*WORDS, "plan.cpus_per_learner=100000")
    assert answer.code == 2
    assert "plan.cpus_per_learner" in answer.err


def test_a_finished_run_is_recognised(command: Any, run_dir: Path) -> None:
    words = ("epochs=1", "data.train_limit=100", "data.test_limit=100", "--on", "process", "--run-dir", str(run_dir))
    answer = command("train", "infopro_digits", *words, "--dry-run")
    assert answer.code == 0
    assert "holds 2 finished steps already" in answer.out

"""Does `local-learning train` train what was asked, say what came out, and refuse what is wrong?"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.training.folder import default_folder

TINY = ("infopro_digits", "epochs=1", "data.train_limit=100", "data.test_limit=100")
ON = ("--on", "process")


def test_a_training_ends_with_a_summary(command: Any) -> None:
    answer = command("train", *TINY, *ON)
    assert answer.code == 0
    (folder,) = Path("runs").iterdir()
    for said in ("test accuracy", "images/s", "segment0", "segment1", f"tensorboard --logdir {folder}", "curves.png"):
        assert said in answer.out
    assert (folder / "curves.png").is_file()
    assert "step" in answer.err, "progress is told on stderr"


def test_json_is_the_last_line_and_complete(command: Any) -> None:
    answer = command("train", *TINY, *ON, "--json", "--run-dir", "mine")
    result = answer.json
    assert answer.code == 0
    assert result["run_dir"] == str(Path.cwd() / "mine")
    assert result["status"] == "finished"
    assert 0 <= result["test_score"] <= 1
    assert result["metrics"]["test/accuracy"] == result["test_score"]
    assert result["images_per_second"] > 0
    assert set(result["peak_memory_bytes"]) == {"segment0", "segment1"}
    assert len(result["weights_sha256"]) == 64


def test_a_finished_run_is_returned_at_once(command: Any) -> None:
    first = command("train", *TINY, *ON, "--json").json
    written = {path: path.stat().st_mtime_ns for path in Path(first["run_dir"]).rglob("*")}
    again = command("train", *TINY, *ON, "--json")
    assert again.code == 0
    assert again.json == first
    assert {path: path.stat().st_mtime_ns for path in Path(first["run_dir"]).rglob("*")} == written


def test_never_resuming_starts_beside_it(command: Any) -> None:
    first = command("train", *TINY, *ON, "--json").json
    second = command("train", *TINY, *ON, "--json", "--resume", "never").json
    assert second["run_dir"] != first["run_dir"]
    assert second["weights_sha256"] == first["weights_sha256"]


def test_the_json_of_an_earlier_run_repeats_it(command: Any) -> None:
    first = command("train", *TINY, *ON, "--json").json
    recipe = str(Path(first["run_dir"]) / "recipe.json")
    second = command("train", recipe, *ON, "--json", "--run-dir", "again").json
    assert second["run_dir"] == str(Path.cwd() / "again")
    assert second["weights_sha256"] == first["weights_sha256"]


def test_a_run_folder_may_have_an_equals_sign_in_its_path(command: Any, run_dir: Path) -> None:
    run_dir.rename("lr=0.1")
    for folder in ("lr=0.1", str(Path.cwd() / "lr=0.1")):
        answer = command("train", folder, *ON, "--dry-run", "--json", "seed=1")
        assert (answer.code, answer.json["recipe"]["seed"]) == (0, 1), answer.err


@pytest.mark.parametrize("name", ["data.json", "labelled_indices.txt"])
def test_a_disk_without_room_for_another_file_is_no_bug(
    command: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path: Any, *arguments: Any, **named: Any) -> int:
        if name in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, *arguments, **named)

    words = ("train", *TINY, *ON, "data.labelled_fraction=0.5", "--run-dir", "mine")
    with monkeypatch.context() as disk:
        disk.setattr("engine.atomic.os.open", full)
        answer = command(*words)
    assert answer.code == 2
    assert f"mine/{name}: the disk is full; free some space and give the same command again" in answer.err
    assert command(*words).code == 0


def test_all_mistakes_are_listed_at_once(command: Any) -> None:
    answer = command(
        "train", "infopro_digits", "epohcs=3", "method.num_segmnts=2", "optimizer.learning_rate=-1", "plan.windw=3"
    )
    assert answer.code == 2
    for said in ("'epochs'", "'method.num_segments'", "optimizer.learning_rate: found -1", "'plan.window'"):
        assert said in answer.err
    assert len(answer.err.splitlines()) == 4
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("infopro_digit",), "'infopro_digits'"),
        (("epochs=2",), "no recipe is given"),
        (("infopro_digits", "epochs"), "expected field=value"),
        (("mine.py",), "there is no such file"),
        (("infopro_digits", "method.num_segments=99"), "99"),
        ((*TINY, "--on", "process", "plan.executor=ray"), "contradicts"),
        ((*TINY, "--on", "process", "--address", "auto"), "--address auto"),
        ((*TINY, "--address", "a:1", "plan.executor=process"), "contradicts"),
        ((*TINY, "--address", "a:1", "plan.address=b:1"), "contradicts"),
    ],
)
def test_input_that_cannot_be_used_ends_with_2(command: Any, words: tuple[str, ...], said: str) -> None:
    answer = command("train", *words, *(() if "--on" in words or "--address" in words else ON))
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not Path("runs").exists()


def test_a_run_folder_called_like_its_recipe_is_gone_on_with(command: Any, tmp_path: Path) -> None:
    words = ("train", "end_to_end_digits", "data.train_limit=100", "data.test_limit=100", "epochs=1", *ON)
    for said in ("", "is finished already"):
        answer = command(*words, "--run-dir", "end_to_end_digits")
        assert answer.code == 0 and said in answer.err


def test_a_folder_of_another_recipe_is_refused(command: Any, run_dir: Path) -> None:
    answer = command("train", *TINY, *ON, "seed=1", "--run-dir", str(run_dir))
    assert answer.code == 2
    assert "seed was 0 and is now 1" in answer.err


def test_flags_may_stand_anywhere_and_repeat_a_field(command: Any) -> None:
    answer = command("train", "--dry-run", "infopro_digits", "--on", "process", "seed=4", "plan.executor=process")
    assert answer.code == 0


def test_a_learner_that_fails_ends_with_3(command: Any) -> None:
    answer = command("train", *TINY, *ON, "epochs=20", "optimizer.learning_rate=1e9", "--run-dir", "mine")
    assert answer.code == 2, "epochs is given twice"
    answer = command("train", "infopro_digits", *ON, "optimizer.learning_rate=1e9", "--run-dir", "mine", "--json")
    assert answer.code == 3
    assert answer.json["exit_code"] == 3
    assert "learner segment" in answer.json["error"]
    assert "failed" in Path("mine/log.txt").read_text()


def _interrupt_after_the_first_checkpoint(folder: Path, done: threading.Event) -> None:
    while not done.is_set():
        if list(folder.glob("checkpoints/step-*/MANIFEST.json")):
            os.kill(os.getpid(), signal.SIGINT)
            return
        time.sleep(0.01)


def test_an_interrupted_training_goes_on_with_the_same_command(command: Any) -> None:
    words = ("train", "infopro_digits", *ON, "epochs=4", "data.train_limit=200", "plan.checkpoint_every_steps=2")
    straight = command(*words, "--json", "--run-dir", "straight").json
    done = threading.Event()
    helper = threading.Thread(target=_interrupt_after_the_first_checkpoint, args=(Path("cut"), done))
    helper.start()
    try:
        answer = command(*words, "--run-dir", "cut")
    finally:
        done.set()
        helper.join()
    assert answer.code == 130
    assert "the same command goes on" in answer.out
    preview = command(*words, "--run-dir", "cut", "--dry-run", "--json").json
    assert 0 < preview["finished_steps"] < preview["total_steps"]
    assert command("evaluate", "cut").code == 0
    resumed = command(*words, "--run-dir", "cut", "--json")
    assert resumed.code == 0
    assert resumed.json["weights_sha256"] == straight["weights_sha256"]


OWN_NETWORK = """
from collections import OrderedDict
from torch import nn

def build(num_classes, image_shape, width=4):
    return nn.Sequential(OrderedDict([
        ("first", nn.Sequential(nn.Conv2d(image_shape[0], width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())),
        ("second", nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())),
        ("classifier", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))),
    ]))
"""
OWN_RECIPE = """
from pathlib import Path
from engine.recipes import Backbone, Data, Greedy, Recipe

def recipe():
    network = Path(__file__).with_name("network.py")
    return Recipe(
        name="own",
        method=Greedy(num_segments=2),
        backbone=Backbone(name=f"{network}:build", options={"width": 6}),
        data=Data(name="digits", batch_size=50, train_limit=100, test_limit=50),
        epochs=1,
    )
"""


def test_a_recipe_and_a_network_of_ones_own(command: Any) -> None:
    Path("mine").mkdir()
    Path("mine/network.py").write_text(OWN_NETWORK)
    Path("mine/own.py").write_text(OWN_RECIPE)
    answer = command("train", "mine/own.py", *ON, "--json", "seed=2")
    assert answer.code == 0, answer.err
    run = answer.json["run_dir"]
    assert Path(run).name.startswith("own-")
    assert command("evaluate", run, "--json").json["test_score"] == answer.json["test_score"]
    assert command("export", run, "--to", "own.safetensors").code == 0


def test_the_default_folder_is_the_engines(command: Any) -> None:
    answer = command("train", *TINY, *ON, "--dry-run", "--json")
    recipe, _ = engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), TINY[1:])
    assert answer.json["run_dir"] == str(default_folder(recipe).absolute())

"""Does what a message says work, when somebody does it?"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.cli.main import main
from engine.tracking import read_metrics

TINY = ("epochs=1", "data.train_limit=100", "data.test_limit=100")
TRAIN = ("train", "greedy_digits", *TINY, "--on", "process")
UNNAMED = """
from torch import nn

def network(num_classes, image_shape):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(image_shape[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)),
    )
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_the_cut_that_estimate_prints_can_be_pasted(command: Any) -> None:
    """Blocks without names are called 0, 1, ..., which a command line takes for numbers."""
    Path("mine.py").write_text(UNNAMED)
    own = ("backbone.name=mine.py:network", "backbone.widths=null")
    for count in (2, 3):
        answer = command("estimate", "infopro_digits", *own, "--k", str(count), "--profile")
        (line,) = [line for line in answer.out.splitlines() if "measured" in line]
        (printed,) = shlex.split(line.split()[-1])
        fields = (*own, f"method.num_segments={count}", f"method.cuts={printed}")
        recipe, _ = engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), fields)
        assert recipe.method.cuts == tuple(printed.split(","))
        assert command("estimate", "infopro_digits", *fields, "--k", str(count)).code == 0
        assert command("train", "infopro_digits", *fields, "--dry-run", "--on", "process").code == 0


@pytest.mark.parametrize("given", ["0,1", "[0, 1]", '["0", "1"]', (0, 1), [0, "1"]])
def test_numbers_are_names_of_blocks(given: Any) -> None:
    start = engine.load_recipe("infopro_digits")
    if isinstance(given, str):
        recipe, _ = engine.apply_overrides(start, engine.Plan(), [f"method.cuts={given}"])
        assert recipe.method.cuts == ("0", "1")
    else:
        assert type(start.method)(cuts=given).cuts == ("0", "1")


def test_a_cut_that_does_not_exist_names_those_that_do(command: Any) -> None:
    Path("mine.py").write_text(UNNAMED)
    own = ("backbone.name=mine.py:network", "backbone.widths=null")
    answer = command("estimate", "infopro_digits", *own, "method.cuts=7", "--k", "2")
    assert answer.code == 2
    last = re.search(r"Possible are the children from 0 to (\d)", answer.err)
    assert last is not None
    assert command("estimate", "infopro_digits", *own, f"method.cuts={last[1]}", "--k", "2").code == 0


def test_a_home_folder_in_a_path_is_meant_everywhere(command: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", "~/cache")
    answer = command(*TRAIN, "--run-dir", "~/run", "plan.mirror=~/mirror", "--json")
    assert answer.code == 0
    assert answer.json["run_dir"] == str(home / "run")
    assert (home / "run" / "summary.json").exists()
    assert (home / "mirror" / "summary.json").exists()
    assert json.loads((home / "run" / "plan.json").read_text())["mirror"] == str(home / "mirror")
    assert command("evaluate", "~/run", "--json").json["run_dir"] == str(home / "run")
    assert command("export", "~/run", "--to", "~/net.safetensors").code == 0
    weights = ("backbone.weights=~/net.safetensors", "--run-dir", "~/second", "--json")
    assert command(*TRAIN, *weights).json["run_dir"] == str(home / "second")
    assert not list(Path.cwd().iterdir())
    # The same command again finds the finished run.
    assert "finished already" in command(*TRAIN, *weights).err


def test_the_api_expands_paths_too(home: Path, tiny_recipe: Any) -> None:
    result = engine.train(tiny_recipe(epochs=1), engine.Plan(executor="process"), run_dir="~/rr")
    assert result.run_dir == home / "rr"
    assert engine.load("~/rr").path == home / "rr"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--run-dir", "~nobody-here/run"), "--run-dir"),
        (("--run-dir", ""), "--run-dir"),
        (("plan.mirror=~nobody-here/copy",), "plan.mirror"),
        (("backbone.weights=~nobody-here/net.pth",), "backbone.weights"),
        (("data.labelled_indices=~nobody-here/list.txt",), "data.labelled_indices"),
        (("--run-dir", "/proc/here"), "--run-dir"),
    ],
)
def test_a_path_that_cannot_be_meant_or_written_is_named_before_anything(
    words: tuple[str, ...], field: str, command: Any
) -> None:
    answer = command(*TRAIN, *words)
    assert answer.code == 2
    assert answer.err.startswith(f"local-learning: error: {field}")
    assert len(answer.err.splitlines()) == 1
    assert not list(Path.cwd().iterdir())


def test_a_folder_of_the_name_that_a_message_proposes(command: Any) -> None:
    said = command(*TRAIN, "--run-dir", "~nobody-here/run").err
    proposed = re.search(r"or (\./\S+) for a folder of this name", said)
    assert proposed is not None
    assert command(*TRAIN, "--run-dir", proposed[1]).code == 0
    assert (Path("~nobody-here") / "run" / "summary.json").exists()


def test_a_moved_run_goes_on_where_the_message_says(tmp_path: Path, tiny_recipe: Any) -> None:
    plan = engine.Plan(executor="process")
    engine.train(tiny_recipe(), plan, tmp_path / "run", until_step=4)
    os.rename(tmp_path / "run", tmp_path / "moved")
    assert engine.train(tiny_recipe(), plan, tmp_path / "moved").status == "finished"
    assert engine.train(tiny_recipe(), plan, tmp_path / "run").status == "finished"


def test_the_default_schedule_learns_in_one_epoch(
    tmp_path: Path, tiny_recipe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.recipes import Cosine

    plan = engine.Plan(executor="process", report_every_steps=1)
    one = engine.train(tiny_recipe(epochs=1, schedule=Cosine()), plan, tmp_path / "one")
    assert "schedule.interval=step" in capsys.readouterr().err
    rates = [record.value for record in read_metrics(tmp_path / "one") if record.name == "learning_rate"]
    assert min(rates) > 0
    # As the message says, it is what schedule.interval=step gives.
    other = engine.train(tiny_recipe(epochs=1, schedule=Cosine(interval="step")), plan, tmp_path / "other")
    assert other.weights_sha256 == one.weights_sha256
    assert "learning rate of 0" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"])
def test_pictures_need_no_display_backend_or_home(backend: str, tmp_path: Path) -> None:
    surroundings = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLCONFIGDIR")}
    root = Path(engine.__file__).resolve().parent.parent
    code = (
        "from pathlib import Path\nfrom engine.tracking import Record, plot_curves\nfrom engine.tasks import ACCURACY\n"
        "plot_curves([Record(0.0, 1, 1, 'a', 'train', 'loss/total', 1.0)], Path('curves.png'), 'x', ACCURACY)\n"
        "import os\nassert os.environ['MPLBACKEND'] == " + repr(backend)
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**surroundings, "MPLBACKEND": backend, "HOME": "/proc/nowhere", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_names_that_are_no_utf8(tmp_path: Path, command: Any) -> None:
    from PIL import Image

    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    for split in ("train", "val"):
        for number, kind in enumerate(("cat", os.fsdecode(b"h\xf6nd"))):
            (root / split / kind).mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (8, 8), (60 * index, 100 * number, 0)).save(root / split / kind / f"{index}.png")
    words = ("data.name=folder", f"data.root={root}", "data.batch_size=4", "data.train_limit=null", "epochs=1")
    folder = str(root / "run")
    answer = command("train", "greedy_digits", *words, "--on", "process", "--run-dir", folder)
    assert answer.code == 0, answer.err
    summary = json.loads((root / "run" / "summary.json").read_text())
    assert (summary["status"], summary["warnings"]) == ("finished", [])
    assert main(["evaluate", str(root / "run")]) == 0

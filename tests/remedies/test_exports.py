"""Does a refusal of a run, of a file to be written, or of what an evaluation is asked for say what is accepted?"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine.cli.main import main
from engine.recipes import apply_overrides, with_absolute_paths
from tests.conftest import make_label_maps, make_tiny_recipe

NETWORK = """
from torch import nn


def dense(num_classes, image_shape):
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(body, nn.Conv2d(4, num_classes, 1))
"""
MAPS = (
    "task.kind=segmentation data.name=label_maps data.root=FOLDER/maps data.train_limit=null data.test_limit=null "
    "data.batch_size=2 data.evaluation_batch_size=2 data.augmentation.crop_padding=0 backbone.widths=null "
    "backbone.name=FOLDER/own.py:dense"
)
# What each run is trained with, beside end to end.
TRAINED = {
    "digits": "",
    "cohort": "method.kind=dml",
    "retrieval": "task.kind=retrieval",
    "maps": MAPS,
    "other_maps": MAPS.replace("/maps", "/others"),
}

# A line of the command, and for each remedy what the message says, what a shell does, and the line then.
LINES: list[tuple[str, list[tuple[str, str, str]]]] = [
    (
        "evaluate runs",
        [
            ("give the folder of a training", "true", "evaluate runs/digits"),
            ("or one of its checkpoints", "true", "evaluate runs/digits/checkpoints/step-000001"),
        ],
    ),
    (
        "evaluate runs/digits/checkpoints/step-000009",
        [
            (r"the newest are (step-\d+)\); give another", "true", "evaluate runs/digits/checkpoints/{0}"),
            ("or the run folder, whose newest whole one is taken", "true", "evaluate runs/digits"),
        ],
    ),
    (
        "export runs/digits/checkpoints/last --to c.safetensors",
        [
            (
                r"such as (checkpoints/step-\d{3})",
                "true",
                "export runs/digits/{0}001 --to c.safetensors",
            )
        ],
    ),
    (
        "evaluate runs/digits epochs",
        [("expected (FIELD)=VALUE", "true", "evaluate runs/digits data.evaluation_batch_size=7")],
    ),
    (
        "evaluate runs/digits epochs=3",
        [(r"such as (\S+): train anew for other ones", "true", "evaluate runs/digits {0}=7")],
    ),
    (
        "evaluate runs/maps epochs=3",
        [(r"such as (\S+) or (\S+): train anew for other ones", "true", "evaluate runs/maps {1}=true")],
    ),
    (
        "evaluate runs/digits --save-features f.parquet",
        [("leave (--save-features) out", "true", "evaluate runs/digits")],
    ),
    ("evaluate runs/digits --draw-queries q.png", [("leave (--draw-queries) out", "true", "evaluate runs/digits")]),
    ("evaluate runs/digits --draw-maps m.png", [("leave (--draw-maps) out", "true", "evaluate runs/digits")]),
    (
        "evaluate runs/retrieval --save-features f.csv",
        [(r"give a name with (\.parquet)", "true", "evaluate runs/retrieval --save-features f{0}")],
    ),
    (
        "evaluate runs/retrieval --draw-queries q.jpg",
        [(r"give a name with (\.png)", "true", "evaluate runs/retrieval --draw-queries q{0}")],
    ),
    (
        "evaluate runs/retrieval --save-features new/f.parquet",
        [
            (
                r"there is no folder (\S+); make it first",
                "mkdir {0}",
                "evaluate runs/retrieval --save-features new/f.parquet",
            )
        ],
    ),
    (
        "evaluate runs/retrieval --save-features folder.parquet",
        [("is left alone; give another name", "true", "evaluate runs/retrieval --save-features other.parquet")],
    ),
    (
        "evaluate runs/maps --draw-maps m.jpg",
        [(r"give a name with (\.png)", "true", "evaluate runs/maps --draw-maps m{0}")],
    ),
    (
        "evaluate runs/maps --draw-maps new/m.png",
        [(r"there is no folder (\S+); make it first", "mkdir {0}", "evaluate runs/maps --draw-maps new/m.png")],
    ),
    (
        "evaluate runs/maps --draw-maps folder.png",
        [("is left alone; give another name", "true", "evaluate runs/maps --draw-maps other.png")],
    ),
    (
        "evaluate runs/maps --draw-maps m.png --data-root others",
        [("give those as (--data-root)", "true", "evaluate runs/maps --draw-maps m.png {0} maps")],
    ),
    (
        "evaluate runs/maps --draw-maps m.png --beside runs/other_maps",
        [("leave it out of (--beside)", "true", "evaluate runs/maps --draw-maps m.png {0} runs/maps")],
    ),
    (
        "evaluate runs/maps --beside runs/maps",
        [
            ("give (--draw-maps) FILE(.png) too", "true", "evaluate runs/maps --beside runs/maps {0} m{1}"),
            ("or leave it out", "true", "evaluate runs/maps"),
        ],
    ),
    (
        "evaluate runs/maps --data-root others",
        [("give the same images and labels", "true", "evaluate runs/maps --data-root maps")],
    ),
    (
        "export runs/cohort --to c.safetensors",
        [("say which, as in (--peer 0)", "true", "export runs/cohort --to c.safetensors {0}")],
    ),
    (
        "export runs/cohort --to c.safetensors --peer 7",
        [("expected one of peer0, peer(1)", "true", "export runs/cohort --to c.safetensors --peer {0}")],
    ),
    ("export runs/digits --to c", [(r"give a name with (\.safetensors)", "true", "export runs/digits --to c{0}")]),
    (
        "export runs/digits --to new/c.safetensors",
        [(r"there is no folder (\S+); make it first", "mkdir {0}", "export runs/digits --to new/c.safetensors")],
    ),
    (
        "export runs/digits --to folder.safetensors",
        [("is left alone; give another name", "true", "export runs/digits --to other.safetensors")],
    ),
]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is drawn, which takes longer than the trainings."""
    for place in ("by_products.plot_curves", "features.draw_found", "predicted_maps.draw_label_maps"):
        monkeypatch.setattr(f"engine.training.{place}", lambda *_: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets with label maps, and the runs that were needed so far."""
    folder = tmp_path_factory.mktemp("exports")
    make_label_maps(folder / "maps", {"train": 4, "test": 2})
    make_label_maps(folder / "others", {"train": 4, "test": 2}, seed=1)
    (folder / "own.py").write_text(NETWORK)
    return folder


@pytest.fixture
def command(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """A function: run a line in a folder with all that it names, and return what is said if it ends with this code."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("parquet", "png", "safetensors"):
        (tmp_path / f"folder.{suffix}").mkdir()
    for name in ("maps", "others", "runs"):
        (made / name).mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(made / name)

    def run(line: str, code: int = 0) -> str:
        for name in re.findall(r"runs/(\w+)", line):
            if not (made / "runs" / name).exists():
                words = TRAINED[name].replace("FOLDER", str(made)).split()
                start = make_tiny_recipe(method={"kind": "end_to_end"}, epochs=1)
                recipe = with_absolute_paths(apply_overrides(start, engine.Plan(), words)[0])
                engine.train(recipe, engine.Plan(executor="process"), made / "runs" / name, until_step=1)
        capfd.readouterr()
        found = main(shlex.split(line))
        said = capfd.readouterr()
        assert found == code, f"{line} ended with {found}: {said.err}"
        return said.err

    return run


@pytest.mark.parametrize(
    ("line", "says", "shell", "then"),
    [pytest.param(line, *remedy, id=f"{line}: {remedy[0]}") for line, remedies in LINES for remedy in remedies],
)
def test_a_line_that_is_refused(line: str, says: str, shell: str, then: str, command: Callable[..., str]) -> None:
    message = command(line, code=2)
    found = re.search(says, message)
    assert found, f"the message no longer says {says!r}: {message}"
    subprocess.run(["sh", "-ec", shell.format(*found.groups())], check=True, env={"PATH": os.environ["PATH"]})
    command(then.format(*found.groups()))


@pytest.mark.parametrize("line", ["evaluate {}", "export {} --to c.safetensors"])
def test_a_checkpoint_that_is_damaged(line: str, command: Callable[..., str], tmp_path: Path) -> None:
    command("export runs/digits --to c.safetensors")
    shutil.copytree("runs/digits", "copy")
    shutil.copytree("copy/checkpoints/step-000001", "copy/checkpoints/step-000002")
    message = command(line.format("copy/checkpoints/step-000002"), code=2)
    assert "give another checkpoint, or the run folder, whose newest whole one is taken" in message
    command(line.format("copy/checkpoints/step-000001"))
    command(line.format("copy"))


def test_a_map_that_cannot_be_drawn_costs_no_evaluation(
    command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[object] = []
    monkeypatch.setattr("engine.training.evaluate", lambda *given: evaluated.append(given))
    command("evaluate runs/digits --draw-maps m.png", code=2)
    assert not evaluated


def test_onnx_that_is_not_installed(command: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.export.importlib.util.find_spec", lambda name: None)
    message = command("export runs/digits --to network.onnx", code=2)
    found = re.search(r"pip install 'local-learning\[(\w+)\]', or give a name with (\.safetensors)", message)
    assert found, message
    command(f"export runs/digits --to network{found[2]}")
    # The extra that is named brings what is missing.
    extras = re.search(rf"\n{found[1]} = \[([^]]+)\]", (Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert extras and {"onnx", "onnxscript"} <= set(re.findall(r'"(\w+)', extras[1]))

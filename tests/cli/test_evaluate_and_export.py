"""Can a run be scored and exported from the command line?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch


def test_the_score_is_the_trainings(command: Any, run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    answer = command("evaluate", str(run_dir), "--json")
    assert answer.code == 0
    assert answer.json["test_accuracy"] == summary["test_accuracy"]
    assert answer.json["metrics"] == summary["metrics"]
    assert answer.json["step"] == summary["steps"]


def test_the_score_in_words(command: Any, run_dir: Path) -> None:
    accuracy = json.loads((run_dir / "summary.json").read_text())["test_accuracy"]
    answer = command("evaluate", str(run_dir))
    assert f"{100 * accuracy:.2f} %" in answer.out
    assert "test loss" in answer.out


def test_evaluating_reads_the_data_root(command: Any, run_dir: Path) -> None:
    recipe = json.loads((run_dir / "recipe.json").read_text())
    recipe["data"] |= {"name": "cifar10", "root": "gone"}
    (run_dir / "recipe.json").write_text(json.dumps(recipe))
    Path("here").mkdir()
    answer = command("evaluate", str(run_dir), "--data-root", "here")
    assert answer.code == 2
    assert "here" in answer.err
    assert "gone" not in answer.err


def test_what_is_no_run_is_refused(command: Any, run_dir: Path) -> None:
    assert command("evaluate", "nowhere").code == 2
    shutil.rmtree(run_dir / "checkpoints")
    answer = command("evaluate", str(run_dir))
    assert answer.code == 2
    assert "no complete checkpoint" in answer.err
    assert command("export", str(run_dir), "--to", "a.safetensors").code == 2
    assert not Path("a.safetensors").exists()


def test_export_reports_what_it_wrote(command: Any, run_dir: Path) -> None:
    answer = command("export", str(run_dir), "--to", "a.safetensors", "--json")
    assert answer.code == 0
    assert answer.json["file"] == "a.safetensors"
    assert answer.json["max_difference"] == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert answer.json["weights_sha256"] == summary["weights_sha256"]
    assert len(safetensors.torch.load_file("a.safetensors")) == answer.json["tensors"]
    assert "a.safetensors" in command("export", str(run_dir), "--to", "a.safetensors").out


def test_a_network_that_is_not_there_is_refused(command: Any, run_dir: Path) -> None:
    answer = command("export", str(run_dir), "--to", "a.safetensors", "--network", "peer7")
    assert answer.code == 2
    assert "peer7" in answer.err
    assert command("export", str(run_dir), "--to", "a.safetensors", "--network", "network").code == 0

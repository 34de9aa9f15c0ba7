"""Can a run be scored and exported from the command line?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from engine import Plan, Result, apply_overrides, load_recipe, train
from engine.tracking import read_metrics

# The third peer leaves in the second step.
COHORT = (
    "method.kind=dml",
    'method.peers=[{},{},{"optimizer":{"kind":"sgd","learning_rate":1e30}}]',
    "epochs=1",
    "data.train_limit=100",
    "data.test_limit=100",
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Result:
    recipe, plan = apply_overrides(load_recipe("end_to_end_digits"), Plan(executor="process"), COHORT)
    return train(recipe, plan, tmp_path_factory.mktemp("cohort") / "run")


def test_the_score_is_the_trainings(command: Any, run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    answer = command("evaluate", str(run_dir), "--json")
    assert answer.code == 0
    assert answer.json["test_score"] == summary["test_score"]
    assert answer.json["metrics"] == summary["metrics"]
    assert answer.json["step"] == summary["steps"]


def test_that_another_precision_is_taken_is_said(command: Any, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = json.loads((run_dir / "recipe.json").read_text())
    recipe["numerics"]["precision"] = "float16"
    (run_dir / "recipe.json").write_text(json.dumps(recipe))
    said = "scored in float32, because numerics.precision=float16 needs a GPU, and there is none"
    assert command("evaluate", str(run_dir)).out.splitlines()[-1] == said


def test_that_a_file_of_ones_own_has_changed_is_said(command: Any) -> None:
    network = """
from torch import nn

def network(num_classes, image_shape):
    return nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU()), nn.Linear(8, num_classes))
"""
    Path("net.py").write_text(network)
    words = ("backbone.name=net.py:network", "backbone.widths=null", "epochs=1", "data.train_limit=100")
    recipe, plan = apply_overrides(load_recipe("end_to_end_digits"), Plan(executor="process"), words)
    train(recipe, plan, "run")
    asked = (("evaluate", "run"), ("export", "run", "--to", "net.safetensors"))
    for words in asked:
        assert command(*words, "--json").json["warnings"] == []
    Path("net.py").write_text(network.replace("ReLU", "Tanh"))
    for words in asked:
        (said,) = command(*words, "--json").json["warnings"]
        assert said.startswith(f"{Path('run').absolute()}: {Path('net.py').absolute()} has changed since step 2, whose")
        assert command(*words).out.splitlines()[-1] == said


def test_the_score_in_words(command: Any, run_dir: Path) -> None:
    accuracy = json.loads((run_dir / "summary.json").read_text())["test_score"]
    answer = command("evaluate", str(run_dir))
    assert f"{100 * accuracy:.2f} %" in answer.out
    assert "test loss" in answer.out


def test_a_picture_that_is_not_asked_for_takes_no_other_run(command: Any, run_dir: Path) -> None:
    answer = command("evaluate", str(run_dir), "--beside", str(run_dir))
    assert answer.code == 2
    assert "--draw-maps FILE.png" in answer.err
    answer = command("evaluate", str(run_dir), "--draw-maps", "maps.png")
    assert answer.code == 2
    assert "task.kind=classification predicts no label maps" in answer.err


def test_of_a_cohort_each_network_has_its_line(command: Any, cohort: Result) -> None:
    answer = command("evaluate", str(cohort.run_dir))
    assert answer.code == 0
    heading, header, *lines = answer.out.splitlines()
    assert heading == f"{cohort.run_dir} after step 2:"
    assert header.split()[:3] == ["test", "accuracy", "top5"]
    accuracy, loss = header.index("accuracy"), header.index("loss")
    for line, name in zip(lines, ("peer0", "peer1", "peer2", "ensemble"), strict=False):
        assert line[2:accuracy].strip() == name
        assert line[accuracy:].startswith(f"{100 * cohort.metrics[f'{name}/test/accuracy']:.2f} %")
        assert line[loss:].startswith("nan" if name == "peer2" else f"{cohort.metrics[f'{name}/test/loss']:.4f}")
    gap, divergence, disagreement, diverged = lines[4:]
    assert gap.split() == ["accuracy", "gap", f"{100 * cohort.metrics['ensemble/test/accuracy_gap']:.2f}", "points"]
    between = cohort.metrics["ensemble/test/kl_between_peers"]
    assert divergence.split() == ["KL", "between", "peers", f"{between:.4f}", "nats"]
    assert disagreement.split()[0] == "disagreement" and disagreement.endswith(" %")
    assert diverged == f"  peer2 left: {cohort.diverged['peer2']}"


def test_the_scores_of_a_cohort_are_the_trainings(command: Any, cohort: Result) -> None:
    answer = command("evaluate", str(cohort.run_dir), "--json").json
    # The third peer has left.
    peers = [answer["metrics"][f"peer{index}/test/accuracy"] for index in range(2)]
    assert answer["test_score"] == cohort.test_score == pytest.approx(sum(peers) / 2)
    assert answer["metrics"].keys() == cohort.metrics.keys()
    assert answer["metrics"]["ensemble/test/loss"] == cohort.metrics["ensemble/test/loss"]


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


def test_a_damaged_newer_checkpoint_is_named(command: Any, cohort: Result) -> None:
    newest = max((cohort.run_dir / "checkpoints").iterdir())
    shutil.copytree(newest, newest.with_name("step-000099"))
    line = f"{newest.with_name('step-000099')}: damaged, skipped: state.json is of step 2"
    assert command("evaluate", str(cohort.run_dir)).out.splitlines()[0] == line
    exported = command("export", str(cohort.run_dir), "--to", "a.safetensors", "--peer", "0")
    shutil.rmtree(newest.with_name("step-000099"))
    assert exported.out.splitlines()[0] == line


def test_an_earlier_checkpoint_is_scored_and_exported(command: Any, tmp_path: Path) -> None:
    words = ("epochs=2", "data.train_limit=100", "data.test_limit=100")
    recipe, plan = apply_overrides(load_recipe("end_to_end_digits"), Plan(executor="process"), words)
    result = train(recipe, plan, tmp_path / "run")
    earlier = str(result.run_dir / "checkpoints" / "step-000002")
    answer = command("evaluate", earlier, "--json").json
    records = [record for record in read_metrics(result.run_dir) if (record.split, record.step) == ("test", 2)]
    assert answer["metrics"] == {f"test/{record.name}": record.value for record in records}
    assert (answer["run_dir"], answer["step"]) == (str(result.run_dir), 2)
    assert answer["metrics"] != command("evaluate", str(result.run_dir), "--json").json["metrics"] == result.metrics
    assert command("evaluate", earlier).out.splitlines()[0] == f"{result.run_dir} after step 2:"
    exported = [
        command("export", place, "--to", "a.safetensors", "--json").json["weights_sha256"]
        for place in (earlier, str(result.run_dir))
    ]
    assert exported[0] != exported[1] == result.weights_sha256


def test_export_reports_what_it_wrote(command: Any, run_dir: Path) -> None:
    answer = command("export", str(run_dir), "--to", "a.safetensors", "--json")
    assert answer.code == 0
    assert answer.json["file"] == str(Path("a.safetensors").absolute())
    assert answer.json["max_difference"] == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert answer.json["weights_sha256"] == summary["weights_sha256"]
    assert len(safetensors.torch.load_file("a.safetensors")) == answer.json["tensors"]
    assert "a.safetensors" in command("export", str(run_dir), "--to", "a.safetensors").out


def test_a_peer_is_exported_by_its_number(command: Any, run_dir: Path, cohort: Result) -> None:
    answer = command("export", str(run_dir), "--to", "a.safetensors", "--peer", "7")
    assert answer.code == 2
    assert "peer7" in answer.err
    answer = command("export", str(cohort.run_dir), "--to", "a.safetensors", "--peer", "1", "--json")
    assert answer.code == 0
    assert answer.json["weights_sha256"] == cohort.weights_sha256.split("-")[1]
    answer = command("export", str(cohort.run_dir), "--to", "b.safetensors")
    assert answer.code == 2
    assert "peer0, peer1, peer2" in answer.err

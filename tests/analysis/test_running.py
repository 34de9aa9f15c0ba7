"""Are runs analysed on the images that were asked for, resumed, put together, and refused where it means nothing?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from PIL import Image

import engine
from engine.analysis import ANALYSES, OpenedRun, Settings, analyse, running
from engine.analysis.parts import Part
from engine.analysis.posterior import Posterior
from engine.errors import InputError, NotWritten, RunError
from engine.recipes import Plan, Retrieval
from tests.analysis.conftest import tiny

FILES = {"numbers.parquet", "numbers.json", "table.md", "picture.png", "parts"}
FEW = Settings(images=20)
ON_IMAGES = [name for name, analysis in ANALYSES.items() if analysis.looks_at_images]


def test_each_run_gets_its_files_and_several_are_put_together(run_of: Any) -> None:
    runs = [run_of("end_to_end"), run_of("dml")]
    findings = analyse(runs, ["posterior"], FEW)
    folders = [run / "analysis" / "posterior" for run in runs] + [runs[0] / "analysis" / "together" / "posterior"]
    assert [finding.folder for finding in findings] == folders
    assert {path.name for path in folders[0].iterdir()} == FILES
    assert {path.name for path in folders[2].iterdir()} == FILES - {"parts"}
    assert [len(finding.rows) for finding in findings] == [1, 2, 3]
    assert list(findings[2].rows) == [*findings[0].rows, *findings[1].rows]
    for finding in findings:
        assert "20 images of test, drawn with seed 0" in finding.caption
        assert pyarrow.parquet.read_table(finding.folder / "numbers.parquet").to_pylist() == list(finding.rows)
        document = json.loads((finding.folder / "numbers.json").read_text())
        assert document["rows"] == list(finding.rows) and document["columns"].keys() == finding.rows[0].keys()
        table = (finding.folder / "table.md").read_text()
        assert all(f"| {row['run']} | {row['network']}" in table for row in finding.rows)
        with Image.open(finding.folder / "picture.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_the_same_command_measures_nothing_twice(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, measured, measure = run_of("dml"), [], Posterior.measure

    def interrupted(self: Posterior, opened: OpenedRun, network: str, part: str) -> Any:
        if network == "peer1" and "peer1" not in measured:
            measured.append(network)
            raise KeyboardInterrupt
        measured.append(network)
        return measure(self, opened, network, part)

    monkeypatch.setattr(Posterior, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        analyse([run], ["posterior"], FEW)
    first = analyse([run], ["posterior"], FEW)
    assert measured == ["peer0", "peer1", "peer1"]
    assert analyse([run], ["posterior"], FEW) == first
    assert len(measured) == 3
    (damaged, _) = (run / "analysis" / "posterior" / "parts").iterdir()
    damaged.write_bytes(b"damaged")
    assert analyse([run], ["posterior"], FEW) == first
    assert len(measured) == 4
    told: list[str] = []
    analyse([run], ["posterior"], Settings(images=20, probe_epochs=3), tell=told.append)
    assert len(measured) == 4 and told == []
    # Other images are other parts, and take the place of the earlier ones.
    analyse([run], ["posterior"], Settings(images=20, seed=1, split="train"), tell=told.append)
    assert len(measured) == 6
    earlier = "dml after step 4; 20 images of test, drawn with seed 0"
    assert told[2:] == [f"posterior: {run}/analysis/posterior: replaces what was found of {earlier}"]
    assert len(list((run / "analysis" / "posterior" / "parts").iterdir())) == 2


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _without_digest(path: Path) -> None:
    """As the version before wrote it."""
    path.write_bytes(safetensors.numpy.save(safetensors.numpy.load_file(path)))


def _renamed(path: Path) -> None:
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({f"{name}_": array for name, array in arrays.items()}, path, {"sha256": "0" * 64})


def _of_brain_floats(path: Path) -> None:
    safetensors.torch.save_file({"numbers": torch.zeros(2, dtype=torch.bfloat16)}, path)


def _linked(path: Path) -> None:
    path.symlink_to(path.rename(path.parents[1] / "elsewhere"))


def _of_another(path: Path) -> None:
    (other,) = (each for each in path.parent.iterdir() if each != path)
    path.write_bytes(other.read_bytes())


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil", [_flipped, _without_digest, _renamed, _of_brain_floats, _linked, _of_another, _as_folder]
)
def test_a_part_that_is_not_what_was_measured_is_measured_again(
    run_of: Any, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    run, measured, measure = run_of("dml"), [], Posterior.measure

    def noted(self: Posterior, opened: OpenedRun, network: str, part: str) -> Any:
        measured.append(network)
        return measure(self, opened, network, part)

    first = analyse([run], ["posterior"], FEW)
    monkeypatch.setattr(Posterior, "measure", noted)
    damaged = min((run / "analysis" / "posterior" / "parts").iterdir())
    spoil(damaged)
    if spoil is _as_folder:
        # Nothing can be put in its place, which is told as that.
        with pytest.raises(NotWritten, match=damaged.name):
            analyse([run], ["posterior"], FEW)
        return
    assert analyse([run], ["posterior"], FEW) == first
    assert len(measured) == 1
    assert analyse([run], ["posterior"], FEW) == first
    assert len(measured) == 1 and not damaged.is_symlink()


def test_what_killed_analyses_left_is_removed(run_of: Any) -> None:
    run = run_of("end_to_end")
    folder = run / "analysis" / "posterior"
    (folder / "parts").mkdir(parents=True)
    left = [folder / ".picture.png.4711.tmp", folder / "parts" / ".x.cpu.safetensors.4711.tmp"]
    for path in left:
        path.write_text("half")
        os.utime(path, (0, 1_000_000_000))
    analyse([run], ["posterior"], FEW)
    assert not any(path.exists() for path in left)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(run_of: Any, tmp_path: Path) -> None:
    runs = [run_of("end_to_end"), run_of("dml")]
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "posterior").touch()
    for to in (tmp_path / "both", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="--to"):
            analyse(runs, ["posterior"], FEW, to=to)
    assert not (runs[0] / "analysis").exists()


@pytest.mark.slow
def test_every_analysis_finds_the_same_in_what_it_kept(run_of: Any) -> None:
    run, settings = run_of("infopro"), Settings(images=12, probe_epochs=1)

    def numbers() -> dict[str, str]:
        return {path.parent.name: path.read_text() for path in run.glob("analysis/*/numbers.json")}

    analyse([run], ON_IMAGES, settings)
    first = numbers()
    assert first.keys() == set(ON_IMAGES)
    told: list[str] = []
    analyse([run], ON_IMAGES, settings, tell=told.append)
    assert numbers() == first and told == []


def test_where_the_images_lie_means_the_same_in_every_process(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots, measure = list[str | None](), Posterior.measure

    def noted(self: Posterior, opened: OpenedRun, network: str, part: str) -> Any:
        roots.append(opened.settings.data_root)
        return measure(self, opened, network, part)

    monkeypatch.setattr(Posterior, "measure", noted)
    monkeypatch.chdir(tmp_path)
    analyse([run_of("end_to_end")], ["posterior"], Settings(images=20, data_root="images"))
    assert roots == [str(tmp_path / "images")]


def test_the_device_is_that_where_it_was_measured(run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, measured = run_of("end_to_end"), running._measured
    with monkeypatch.context() as patched:
        patched.setattr(running, "_measured", lambda *given: Part(measured(*given).arrays, "elsewhere"))
        analyse([run], ["posterior"], FEW)
    told: list[str] = []
    analyse([run], ["posterior"], FEW, tell=told.append)
    document = json.loads((run / "analysis" / "posterior" / "numbers.json").read_text())
    assert [each["device"] for each in document["runs"]] == ["elsewhere"] and told == []


def test_images_are_drawn_by_the_seed(trained_runs: Any) -> None:
    def drawn(**settings: Any) -> np.ndarray:
        with OpenedRun(trained_runs("end_to_end"), Settings(**settings)) as opened:
            return opened.images.batch.indices

    eight = drawn(images=8)
    assert len(set(eight)) == 8 and list(eight) == sorted(eight)
    assert np.array_equal(eight, drawn(images=8))
    assert not np.array_equal(eight, drawn(images=8, seed=1))
    assert set(eight) < set(drawn(images=12))
    assert len(drawn(images=1000)) == 20 and len(drawn(images=1000, split="train")) == 44


def test_a_checkpoint_has_a_folder_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    engine.train(tiny("end_to_end"), Plan(executor="process", checkpoint_every_steps=2), run)
    checkpoint = run / "checkpoints" / "step-000002"
    (finding,) = analyse([checkpoint], ["posterior"], FEW)
    assert finding.folder == run / "analysis" / checkpoint.name / "posterior"
    both = analyse([run, checkpoint], ["posterior"], FEW)
    assert both[2].folder == run / "analysis" / "together" / "posterior"
    assert [row["run"] for row in both[2].rows] == ["run step 4", "run step 2"]
    with pytest.raises(InputError, match="step-000004: is given twice"):
        analyse([run, run / "checkpoints" / "step-000004"], ["posterior"], FEW)


@pytest.mark.filterwarnings("error")
@pytest.mark.slow
def test_names_of_any_length_leave_room_for_the_picture(run_of: Any) -> None:
    run = run_of("end_to_end", "a/run")
    runs = [run, run_of("end_to_end", "b/run"), run_of("infopro", "x" * 150)]
    together = analyse(runs, ["posterior", "similarity"], FEW)[3]
    assert [row["run"] for row in together.rows] == ["a/run", "b/run", "x" * 150]


def test_what_has_no_meaning_is_refused_before_anything_is_measured(run_of: Any, tmp_path: Path) -> None:
    run = run_of("end_to_end")
    (checkpoint,) = (run / "checkpoints").iterdir()
    for places, names, changes, parts in (
        ([run], ["posteriori"], {}, ("--of posteriori", "did you mean 'posterior'")),
        ([run, run], ["posterior"], {}, (str(run), "given twice")),
        ([run], ["posterior"], {"to": tmp_path}, ("--to", "several runs")),
        (
            [checkpoint.with_name("step-000999")],
            ["posterior"],
            {},
            ("step-000999", f"no such checkpoint (the newest are {checkpoint.name})"),
        ),
        ([checkpoint.with_name("last")], ["posterior"], {}, ("is no checkpoint",)),
        ([tmp_path / "nothing"], ["posterior"], {}, ("is no run folder",)),
    ):
        with pytest.raises(InputError) as error:
            analyse(places, names, FEW, **changes)
        assert all(part in str(error.value) for part in parts), error.value
    with pytest.raises(RunError, match="--split validation: .* no labelled image there; give one of train, test"):
        analyse([run], ["posterior"], Settings(split="validation"))
    assert not (run / "analysis").exists()


def test_runs_of_other_images_are_not_compared(run_of: Any, tmp_path: Path) -> None:
    recipe = tiny("end_to_end", data={"test_limit": 12})
    other = engine.train(recipe, Plan(executor="process"), tmp_path / "other").run_dir
    with pytest.raises(RunError, match="other: has other images in test than .*end_to_end, so nothing can be compared"):
        analyse([run_of("end_to_end"), other], ["posterior"], FEW)


def test_a_task_that_predicts_classes_of_training_images_only(tmp_path: Path) -> None:
    recipe = tiny("dml", task=Retrieval())
    run = engine.train(recipe, Plan(executor="process"), tmp_path / "run").run_dir
    names = ["posterior", "similarity", "cam", "embedding"]
    with OpenedRun(run, FEW) as opened:
        for analysis in map(ANALYSES.__getitem__, ON_IMAGES):
            assert "predicts classes of training images only" in str(analysis.refusal(opened))
    said = f"--of posterior has no meaning for {run}: task.kind=retrieval .* --split train;"
    with pytest.raises(InputError, match=said):
        analyse([run], ["posterior", "topmass"], FEW)
    findings = analyse([run], names, Settings(split="train", images=8))
    assert [finding.analysis for finding in findings] == names


def test_the_command_prints_the_table_and_the_folders(
    run_of: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from engine.cli.main import main

    runs = [str(run_of("end_to_end")), str(run_of("infopro"))]
    assert main(["analyse", *runs, "--of", "topmass", "--images", "20", "--to", str(tmp_path / "both")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("topmass: end_to_end after step 4, infopro after step 4; 20 images of test")
    assert [line.split()[0] for line in lines[2:4]] == ["end_to_end", "infopro"]
    assert lines[-1] == f"  files: {tmp_path / 'both' / 'topmass'}"
    assert main(["analyse", runs[0], "--of", "topmass", "--images", "0"]) == 2
    assert main(["analyse", runs[0], "--of", "topmass", "--address", "auto", "--on", "process"]) == 2
    assert "--images 0: expected 1 or more" in capsys.readouterr().err

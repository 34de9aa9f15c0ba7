"""Is a mirror refused that cannot be used or is of another run, and is nothing followed that leads out of it?"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
import engine.training.mirror
from engine.recipes import Recipe
from tests.training.mirrored_runs import PLAN, Bucket, Told, held, mirrored, train

TinyRecipe = Callable[..., Recipe]
Interrupt = Callable[[int], None]


def test_a_mirror_that_cannot_be_written_ends_the_run_before_it_begins(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    def refuse(what: str, name: str) -> None:
        if what == "write":
            raise PermissionError("AWS Error ACCESS_DENIED during PutObject operation")

    bucket.fail = refuse
    with pytest.raises(engine.PlanError, match=r"^plan.mirror=s3://bucket/run: .*ACCESS_DENIED.*credentials"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        engine.PlanError, match=r"^plan.mirror=/.*/file/run: .*Not a directory.*; check that the folder"
    ):
        train(tiny_recipe(), mirrored(str(tmp_path / "file" / "run")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/run", "Unrecognized filesystem type.*expected a URI that begins with one of s3://"),
        ("s3://key:geheim@bucket/run", "s3://bucket/run: holds a password"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(
    address: str, said: str, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    with pytest.raises(engine.PlanError, match=f"(?s)^plan.mirror=.*{said}") as refused:
        train(tiny_recipe(), mirrored(address), tmp_path / "run")
    assert "geheim" not in str(refused.value)


def test_a_mirror_inside_its_run_folder_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    for place in (tmp_path / "run", tmp_path / "run" / "copy"):
        for address in (str(place), place.as_uri()):
            with pytest.raises(engine.PlanError, match="lies in the run folder"):
                train(tiny_recipe(), mirrored(address), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_place_of_another_run_or_of_other_files_is_refused(
    address: str, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(2)
    train(tiny_recipe(), mirrored(address), tmp_path / "run")
    interrupt_at(0)
    with pytest.raises(engine.RunError, match=r"holds a run of another recipe \(tiny\); give another plan.mirror"):
        train(tiny_recipe(seed=1), mirrored(address), tmp_path / "other")
    with pytest.raises(engine.RunError, match="holds a run already, and a new one must not overwrite it"):
        train(tiny_recipe(), mirrored(address), tmp_path / "other", resume="never")
    assert not (tmp_path / "other").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(engine.PlanError, match="holds files but no recipe.json"):
        engine.training.mirror.open_mirror(
            str(tmp_path / "mine"), tmp_path / "run", tiny_recipe(), "auto", lambda text: None
        )


def test_a_mirror_whose_recipe_cannot_be_read_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "recipe.json").write_text("{")
    with pytest.raises(engine.RunError, match=r"^plan.mirror=/.*/copy: its recipe.json: is damaged: "):
        train(tiny_recipe(), mirrored(str(tmp_path / "copy")), tmp_path / "run")


def test_a_folder_that_is_behind_its_mirror_is_named(
    bucket: Bucket, tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(3)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")
    interrupt_at(5)
    train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "second")
    before = held(bucket)
    with pytest.raises(engine.RunError, match=r"is further \(checkpoints/step-000005\) than .*first \(.*step-000003\)"):
        train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first")
    assert held(bucket) == before
    shutil.rmtree(tmp_path / "first")
    assert train(tiny_recipe(), mirrored("s3://bucket/run"), tmp_path / "first").status == "finished"


def test_no_manifest_leads_out_of_the_mirror(tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt) -> None:
    """A name with ../ would overwrite a file outside, and open it to all."""
    run, outside = tmp_path / "run", tmp_path / "outside.safetensors"
    interrupt_at(2)
    engine.train(tiny_recipe(), PLAN, run)
    (checkpoint,) = (run / "checkpoints").iterdir()
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    content = (checkpoint / "state.json").read_bytes()
    for name in ("../../../outside.safetensors", str(outside)):
        (checkpoint / name).write_bytes(content)
        manifest[name] = manifest["state.json"]
    outside.write_text("mine")
    outside.chmod(0o600)
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))
    interrupt_at(0)
    mirrored = dataclasses.replace(PLAN, mirror=str(tmp_path / "mirror"))
    assert engine.train(tiny_recipe(), mirrored, run).status == "finished"
    assert (outside.read_text(), outside.stat().st_mode & 0o777) == ("mine", 0o600)
    assert engine.load(tmp_path / "mirror").checkpoint.step == 8


def test_no_link_is_followed_into_or_out_of_a_mirror(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    run, mirror, outside = tmp_path / "run", tmp_path / "mirror", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    mirrored = dataclasses.replace(PLAN, mirror=str(mirror))
    engine.train(tiny_recipe(epochs=1), mirrored, run)
    (run / "secret").symlink_to(outside / "secret")
    (run / "more").symlink_to(outside)
    for path in (run / "summary.json", mirror / "summary.json"):
        path.unlink()
    shutil.rmtree(mirror / "checkpoints")
    (mirror / "checkpoints").symlink_to(outside)
    told = Told()
    train(tiny_recipe(epochs=1), mirrored, run, told)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not (mirror / "secret").exists() and not (mirror / "more").exists()
    assert f"plan.mirror={mirror}: leaves out {run}/secret, which is a symbolic link" in told.lines
    assert any("checkpoints is a symbolic link, which may lead anywhere; remove it" in line for line in told.lines)


def test_files_of_a_mirror_that_are_larger_than_any_are_not_read(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    mirror = tmp_path / "mirror"
    interrupt_at(2)
    train(tiny_recipe(), mirrored(str(mirror), keep_checkpoints=9), tmp_path / "run")
    manifest = mirror / "checkpoints" / "step-000002" / "MANIFEST.json"
    whole = manifest.read_bytes()
    for path in (manifest, mirror / "recipe.json"):
        os.truncate(path, 20 * 2**30)
    with pytest.raises(
        engine.RunError,
        match=r"^plan.mirror=/.*/mirror: its recipe.json has more than 67,108,864 bytes, .*give another plan.mirror$",
    ):
        train(tiny_recipe(), mirrored(str(mirror), keep_checkpoints=9), tmp_path / "run")
    (mirror / "recipe.json").write_bytes((tmp_path / "run" / "recipe.json").read_bytes())
    interrupt_at(0)
    assert train(tiny_recipe(), mirrored(str(mirror), keep_checkpoints=9), tmp_path / "run").status == "finished"
    assert manifest.read_bytes() == whole

"""Is a run folder used by its own recipe, its own images and one process only, and is nothing in it lost?"""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.recipes import SGD, Backbone, Data, Recipe, Recovery
from engine.training import holding, load
from engine.training.folder import RunFolder

TinyRecipe = Callable[..., Recipe]
IN_PROCESS = engine.Plan(executor="process")
AT_ONCE = Recovery(checkpoint_patience_seconds=0.0)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_another_recipe_is_refused_and_the_difference_named(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(2)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    before = _contents(tmp_path)
    other = tiny_recipe(optimizer=SGD(learning_rate=0.07), seed=3)
    with pytest.raises(engine.RunError) as caught:
        engine.train(other, IN_PROCESS, tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "optimizer.learning_rate was 0.05 and is now 0.07" in message
    assert "seed was 0 and is now 3" in message
    assert "--run-dir" in message
    assert "--resume never" in message
    assert _contents(tmp_path) == before


def test_another_name_is_the_same_recipe(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(2)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    interrupt_at(0)
    assert engine.train(tiny_recipe(name="other"), IN_PROCESS, tmp_path).status == "finished"


def test_a_folder_of_something_else_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(engine.RunError, match=r"no recipe.json, so it is no run folder; give another --run-dir"):
        engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert _contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("years of work")
    for resume in ("auto", "never"):
        with pytest.raises(engine.RunError, match="is a file; give the name of a folder"):
            engine.train(tiny_recipe(), IN_PROCESS, path, resume=resume)
    assert path.read_text() == "years of work"


def test_an_empty_folder_is_used(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path).run_dir == tmp_path


def test_default_folder_is_found_again(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch, interrupt_at: Callable[[int], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupt_at(2)
    first = engine.train(tiny_recipe(), IN_PROCESS)
    interrupt_at(0)
    second = engine.train(tiny_recipe(), IN_PROCESS)
    other = engine.train(tiny_recipe(seed=1, epochs=1), IN_PROCESS)
    assert (first.status, second.status) == ("interrupted", "finished")
    assert first.run_dir == second.run_dir != other.run_dir
    assert first.run_dir.parent == tmp_path / "runs"
    assert first.run_dir.name.startswith("tiny-")


def test_resume_never_starts_beside_it(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Callable[[int], None]
) -> None:
    folder = tmp_path / "run"
    interrupt_at(2)
    engine.train(tiny_recipe(), IN_PROCESS, folder)
    before = _contents(folder)
    interrupt_at(0)
    for number in (2, 3):
        result = engine.train(tiny_recipe(epochs=1), IN_PROCESS, folder, resume="never")
        assert result.run_dir == tmp_path / f"run-{number}"
        assert result.steps == 4
    assert _contents(folder) == before


def test_a_finished_run_is_returned_at_once(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    before = _contents(tmp_path)

    def refuse(*_: Any) -> None:
        raise AssertionError("images were opened")

    monkeypatch.setattr("engine.training.session.open_source", refuse)
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path) == first
    assert _contents(tmp_path) == before


HOLD_LOCK = """
import pathlib, sys
from engine.training.holding import hold
lock = hold(pathlib.Path(sys.argv[1]), "training")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def _held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a run folder; it is gone after the block."""
    command = [sys.executable, "-c", HOLD_LOCK, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[1])}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            yield holder
        finally:
            holder.kill()


def test_a_second_process_is_told_who_trains_in_a_folder_before_it_reads_images(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    (tmp_path / "summary.json").unlink()
    before = _contents(tmp_path)
    with _held(tmp_path) as holder, monkeypatch.context() as patched:

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("images were opened")

        patched.setattr("engine.training.session.open_source", refuse)
        with pytest.raises(engine.RunError) as caught:
            engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
        found = re.fullmatch(
            r"(.*): another process is training in this folder \(process (\d+) on (\S+) since (\d{4}-\S+)\); "
            "wait for it, or give another --run-dir",
            str(caught.value),
        )
        assert found is not None
        assert found.groups()[:3] == (str(tmp_path), str(holder.pid), socket.gethostname())
        patched.undo()
        with pytest.raises(engine.RunError, match="another process is training"):
            RunFolder(tmp_path, tiny_recipe(), IN_PROCESS, {})
        (tmp_path / ".lock").write_bytes(before[".lock"])
        assert _contents(tmp_path) == before
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path).status == "finished"


def test_a_run_that_is_dying_still_is_waited_for(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system takes the memory of a killed process back before it closes its files."""
    with _held(tmp_path) as holder:
        monkeypatch.setattr("engine.training.holding._is_ending", lambda pid: pid == holder.pid)
        threading.Timer(0.5, holder.kill).start()
        assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path).status == "finished"


def test_a_process_at_its_end_is_told_from_one_that_works() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not holding._is_ending(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert holding._is_ending(process.pid)
    assert holding._is_ending(process.pid)


def test_a_link_out_of_the_folder_is_refused_and_its_target_left_alone(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    thesis.chmod(0o600)
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "log.txt"):
        (folder / name).symlink_to(thesis)
        with pytest.raises(engine.RunError, match=name):
            engine.train(tiny_recipe(), IN_PROCESS, folder)
        (folder / name).unlink()
    (folder / "checkpoints").rmdir()
    (folder / "checkpoints").symlink_to(tmp_path / "another_run", target_is_directory=True)
    (tmp_path / "another_run" / "step-000001").mkdir(parents=True)
    with pytest.raises(engine.RunError, match=r"checkpoints: is a symbolic link; expected a folder of the run's own"):
        engine.train(tiny_recipe(), IN_PROCESS, folder)
    assert [each.name for each in (tmp_path / "another_run").iterdir()] == ["step-000001"]
    assert thesis.read_text() == "years of work"
    assert thesis.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("engine.training.folder.os.listdir", refuse)
        with pytest.raises(engine.RunError, match=f"{tmp_path}: may not be read by this user"):
            engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    monkeypatch.setattr("engine.training.runs.os.lstat", refuse)
    with pytest.raises(engine.RunError, match=f"{tmp_path}: may not be read by this user"):
        load(tmp_path)


def test_a_pipe_in_the_place_of_the_lock_is_named_and_not_waited_for(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(engine.RunError, match=r"\.lock: is no regular file"):
        engine.train(tiny_recipe(), IN_PROCESS, tmp_path)


def test_a_lock_is_its_owners_alone(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path)
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_run_that_was_killed_before_its_recipe_was_there_starts_again(
    tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    for name in (".lock", ".recipe.json.123.tmp", "log.txt"):
        (tmp_path / name).write_text("")
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path).status == "finished"


def test_the_lock_ends_with_the_training(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.training.loop.Training.run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path).status == "finished"


@pytest.mark.parametrize("fails_at", range(3))
def test_a_disk_that_is_full_from_the_start(
    fails_at: int, tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there is space again, the same command must take the folder for its own."""
    syncs = 0

    def full(_: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("engine.atomic.os.fsync", full)
        with pytest.raises(engine.RunError, match="the disk is full") as caught:
            engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path).status == "finished"


def test_a_disk_that_gets_full_at_a_checkpoint(
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_run: Callable[[Path, Path], None],
) -> None:
    plan = engine.Plan(executor="process", checkpoint_every_steps=2, recovery=AT_ONCE)
    engine.train(tiny_recipe(), plan, tmp_path / "straight")
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if "step-000006" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(engine.RunError, match=r"step-000006.*the disk is full"):
            engine.train(tiny_recipe(), plan, tmp_path / "full")
    assert load(tmp_path / "full").checkpoint.step == 4
    assert engine.train(tiny_recipe(), plan, tmp_path / "full").status == "finished"
    assert_same_run(tmp_path / "straight", tmp_path / "full")


def test_a_disk_that_gets_full_at_a_report(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = engine.Plan(executor="process", report_every_steps=3, checkpoint_every_steps=2, recovery=AT_ONCE)
    with monkeypatch.context() as patched:
        patched.setattr("engine.atomic.os.write", full)
        with pytest.raises(engine.RunError, match="the disk is full") as caught:
            engine.train(tiny_recipe(), plan, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert load(tmp_path).checkpoint.step == 2
    assert engine.train(tiny_recipe(), plan, tmp_path).status == "finished"


@pytest.fixture
def pictures_recipe(tmp_path: Path) -> Callable[[str], Recipe]:
    """A function: name of a folder with two classes of pictures, made unless it exists -> a recipe for them."""

    def make(name: str) -> Recipe:
        root = tmp_path / name
        if not root.exists():
            draws = np.random.default_rng(0)
            for split, number in (("train", 6), ("test", 4)):
                for kind in ("cat", "dog"):
                    (root / split / kind).mkdir(parents=True)
                    for index in range(number):
                        pixels = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                        Image.fromarray(pixels).save(root / split / kind / f"{index}.png")
        data = Data(name="folder", root=str(root), batch_size=4, image_size=8)
        return Recipe(name="tiny", backbone=Backbone(name="resnet14", widths=(4, 4, 4)), data=data, epochs=2,
                      method={"kind": "greedy"})  # fmt: skip

    return make


def test_the_images_may_move(
    tmp_path: Path, pictures_recipe: Callable[[str], Recipe], interrupt_at: Callable[[int], None]
) -> None:
    straight = engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "straight")
    interrupt_at(2)
    assert engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "moved").status == "interrupted"
    (tmp_path / "here").rename(tmp_path / "there")
    interrupt_at(0)
    moved = engine.train(pictures_recipe("there"), IN_PROCESS, tmp_path / "moved")
    assert (moved.status, moved.weights_sha256) == ("finished", straight.weights_sha256)


def test_other_images_are_refused(
    tmp_path: Path, pictures_recipe: Callable[[str], Recipe], interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(2)
    engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "run")
    checkpoints = _contents(tmp_path / "run" / "checkpoints")
    Image.new("RGB", (8, 8)).save(tmp_path / "here" / "train" / "cat" / "0.png")
    interrupt_at(0)
    with pytest.raises(engine.RunError, match=r"step-000002: was trained on other images than data.root=.*here"):
        engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "run")
    assert _contents(tmp_path / "run" / "checkpoints") == checkpoints

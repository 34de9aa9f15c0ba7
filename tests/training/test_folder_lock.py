"""Does one process only train in a run folder, and is another one told which, until that has ended?"""

from __future__ import annotations

import contextlib
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

import pytest

import engine
from engine.errors import FolderHeld
from engine.recipes import Recipe
from engine.training import holding
from engine.training.folder import RunFolder
from engine.training.session import Session
from tests.training.conftest import _contents

TinyRecipe = Callable[..., Recipe]
IN_PROCESS = engine.Plan(executor="process")

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


def test_a_pipe_in_the_place_of_the_lock_is_named_and_not_waited_for(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(engine.RunError, match=r"\.lock: is no regular file"):
        engine.train(tiny_recipe(), IN_PROCESS, tmp_path)


def test_a_lock_is_its_owners_alone(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path)
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".lock").read_bytes() == b""


@pytest.mark.parametrize("fails", [False, True])
def test_the_lock_is_held_until_the_team_has_ended(
    fails: bool, tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave, left = Session.__exit__, []

    def noted(session: Session, *error: Any) -> None:
        leave(session, *error)
        with pytest.raises(FolderHeld, match=f"another process is training .*process {os.getpid()} on "):
            holding.refuse_held(tmp_path, "training")
        left.append(session)

    monkeypatch.setattr(Session, "__exit__", noted)
    if fails:
        monkeypatch.setattr("engine.training.loop.Training.run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path)
    assert len(left) == 1
    holding.refuse_held(tmp_path, "training")


def test_the_lock_ends_with_the_training(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.training.loop.Training.run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path).status == "finished"

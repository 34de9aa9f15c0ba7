"""Is a private Ray private: its folder, its token, what its workers import; and does nothing of it stay behind?"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from engine.errors import PlanError
from engine.runtimes import python_command
from engine.runtimes.ray import disconnect, start_private_ray
from engine.runtimes.ray.private import folder as private_folder
from engine.runtimes.ray.private import holder, lifetime
from engine.runtimes.ray.private.current import current_private_ray
from engine.runtimes.ray.private.folder import PrivateFolder, check_is_private, choose_temporary_folder
from engine.runtimes.ray.private.surroundings import TokenOf, connecting, environment_of_head


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a worker sees that was started by a program without a home, in a folder with modules named like ours."""
    hostile = tmp_path_factory.mktemp("hostile")
    for name in ("torch", "numpy", "engine", "ray"):
        (hostile / f"{name}.py").write_text("raise RuntimeError('imported from the current folder')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hostile)
        patch.setenv("HOME", "/nonexistent")
        patch.setenv("RAY_AUTH_TOKEN_PATH", "/nonexistent/token")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("a" * 90)))
        patch.setattr(sys, "argv", [str(hostile / "script.py")])
        patch.syspath_prepend(str(hostile))
        start_private_ray(num_cpus=1)
        private = current_private_ray()
        assert private is not None
        session, folder = private._process.pid, private._folder.path
        tokens: list[str] = []
        end = private.kill
        patch.setattr(private, "kill", lambda: (tokens.append(os.environ["RAY_AUTH_TOKEN_PATH"]), end()))
        try:
            yield {"seen": ray.get(ray.remote(_look).remote()), "private": private, "hostile": str(hostile)}
        finally:
            disconnect()
        assert not folder.exists()
        # What is ended takes seconds, in which somebody may start another Ray.
        assert tokens[-1] == "/nonexistent/token"
        assert not any(_session(number) == session for number in psutil.pids())
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/nonexistent/token"


def _session(number: int) -> int | None:
    try:
        return os.getsid(number) if psutil.Process(number).status() != psutil.STATUS_ZOMBIE else None
    except (OSError, psutil.Error):
        return None


def _look() -> dict[str, Any]:
    import torch

    import engine

    return {
        "torch": torch.__file__,
        "engine": str(Path(engine.__file__).resolve()),
        "path": sys.path,
        "folder": os.getcwd(),
        "session": os.getsid(0),
    }


def test_workers_import_what_the_command_imports(inside: dict[str, Any]) -> None:
    import engine

    seen = inside["seen"]
    assert inside["hostile"] not in seen["path"]
    assert seen["engine"] == str(Path(engine.__file__).resolve())
    assert seen["folder"] == str(inside["private"]._folder.path)


def test_it_has_a_session_of_its_own(inside: dict[str, Any]) -> None:
    assert inside["seen"]["session"] == inside["private"]._process.pid != os.getsid(0)


def test_nobody_else_gets_in(inside: dict[str, Any]) -> None:
    folder: PrivateFolder = inside["private"]._folder
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.token.stat().st_mode) == 0o600
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(folder.token)


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    with pytest.raises(PlanError, match=r"token: has mode 0644 .* expected mode 0600"):
        check_is_private(token)


def test_the_umask_does_not_open_the_token() -> None:
    before = os.umask(0)
    try:
        folder = PrivateFolder()
        assert stat.S_IMODE(folder.token.stat().st_mode) == 0o600
        folder.remove()
    finally:
        os.umask(before)


def test_the_token_of_clusters_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    private_folder.check_token_of_clusters()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text


def test_a_temporary_folder_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("a" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert choose_temporary_folder() != long
    monkeypatch.setenv("HOME", "/var/tmp")
    monkeypatch.setenv("TMPDIR", "~")
    assert choose_temporary_folder() == Path("/var/tmp")
    monkeypatch.setenv("TMPDIR", "~nobody-here/a")
    with pytest.raises(PlanError, match="TMPDIR=~nobody-here/a: the home folder of ~nobody-here is not known"):
        choose_temporary_folder()
    monkeypatch.setattr(private_folder, "_candidates", lambda: iter([long, Path("/missing")]))
    with pytest.raises(PlanError, match=r"a{90}: has \d+ bytes.*/missing: is no folder.*set TMPDIR"):
        choose_temporary_folder()


def test_the_longest_folder_still_has_room_for_sockets() -> None:
    longest = private_folder._most_bytes()
    name = "/" + "a" * (longest - 1) + "/local_learning_ray_" + "x" * 8 + "/ray/session/sockets/plasma_store"
    assert len(name) == 107


def test_uv_run_and_sigterm_are_left_alone() -> None:
    from ray._private import ray_constants, utils

    before = utils.set_sigterm_handler
    with connecting(on_loopback=True):
        assert ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV is False
        assert utils.set_sigterm_handler is not before
    assert utils.set_sigterm_handler is before


def test_what_belongs_to_other_clusters_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["relative", "", "/absolute"]))
    folder, before = PrivateFolder(), os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        token = TokenOf(folder)
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(folder.token)
        assert "RAY_ADDRESS" not in os.environ
        environment = environment_of_head(folder)
        assert environment["PYTHONPATH"].split(os.pathsep) == [
            str(folder.code),
            os.path.abspath("relative"),
            "/absolute",
        ]
        token.close()
        assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"
        assert os.environ.get("RAY_AUTH_TOKEN_PATH") == before
    finally:
        folder.remove()


def test_a_child_does_not_look_into_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('imported from the current folder')\n")
    (tmp_path / "engine.py").write_text("raise RuntimeError('imported from the current folder')\n")
    command = python_command("import json, engine.errors; print(sys.argv[1:])", ["a", "b"])
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "['a', 'b']", done.stderr


def test_a_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holder, "_RUN", "raise SystemExit('no port is free')")
    before = set(choose_temporary_folder().glob("local_learning_ray_*"))
    monkeypatch.setattr(lifetime.ray, "init", lambda **_: pytest.fail("there is nothing to connect to"))
    monkeypatch.setattr(lifetime.ray, "shutdown", lambda: None)
    with pytest.raises(PlanError, match=r"a private Ray does not start: .*no port is free; .*--on process"):
        lifetime.PrivateRay(1, 0)
    assert set(choose_temporary_folder().glob("local_learning_ray_*")) <= before

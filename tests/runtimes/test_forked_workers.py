"""Are the workers of a private Ray forked off one process, and do they start without it, too?"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
import ray
import torch

from engine.runtimes.ray import disconnect, start_private_ray
from engine.runtimes.ray.private import fork_server, worker_start
from engine.runtimes.ray.private.current import current_private_ray
from engine.runtimes.ray.private.worker_start import VARIABLE, _is_plain


class Looking:
    """An actor that says what it is."""

    def look(self) -> dict[str, Any]:
        memory = psutil.Process().memory_full_info()
        return {
            "parent": os.getppid(),
            "has torch": "torch" in sys.modules,
            # Set for a child of a process that has looked at its GPUs: no GPU can be used there.
            "has no GPU": torch.cuda._is_in_bad_fork(),
            "draws": (float(numpy.random.rand()), random.random()),
            "shared": memory.rss - memory.uss,
            "alone": memory.uss,
            "has a group of its own": os.getpgid(0) == os.getpid(),
            "open files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "threads": torch.get_num_threads(),
            "children's end": signal.getsignal(signal.SIGCHLD),
        }


@pytest.fixture(scope="module")
def server() -> Iterator[psutil.Process]:
    """The process that workers are forked off."""
    start_private_ray(num_cpus=2)
    try:
        private = current_private_ray()
        assert private is not None
        yield next(each for each in private.processes() if any("fork_server.py" in word for word in each.cmdline()))
    finally:
        disconnect()


def _start() -> Any:
    return ray.remote(num_cpus=0)(Looking).remote()


def _first_that_is_not_forked(server: psutil.Process, kept: list[Any]) -> dict[str, Any]:
    """Return what the first actor says that took no worker which was there before."""
    for _ in range(8):
        kept.append(_start())
        seen: dict[str, Any] = ray.get(kept[-1].look.remote())
        if seen["parent"] != server.pid:
            return seen
    raise AssertionError("all actors took forked workers")


@pytest.mark.slow
def test_workers_are_forked_and_share_what_is_imported(server: psutil.Process) -> None:
    actors = [_start() for _ in range(3)]
    seen = ray.get([actor.look.remote() for actor in actors])
    assert {each["parent"] for each in seen} == {server.pid}
    assert all(each["has torch"] for each in seen)
    assert not any(each["has no GPU"] for each in seen)
    # More than by Ray itself, whose workers hold over half alone.
    assert all(each["alone"] < each["shared"] / 2 for each in seen)
    assert len({each["draws"][0] for each in seen}) == 3
    assert len({each["draws"][1] for each in seen}) == 3
    assert all(each["has a group of its own"] for each in seen)
    assert {each["open files"] for each in seen} == {min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)}
    assert {each["threads"] for each in seen} == {int(os.environ.get("OMP_NUM_THREADS", "1"))}
    assert {each["children's end"] for each in seen} == {signal.SIG_DFL}


@pytest.mark.slow
def test_workers_start_without_it(server: psutil.Process) -> None:
    private = current_private_ray()
    assert private is not None
    kept: list[Any] = []
    server.suspend()
    try:
        assert _first_that_is_not_forked(server, kept)["parent"] != server.pid
    finally:
        server.resume()
    server.kill()
    assert _first_that_is_not_forked(server, kept)["parent"] != server.pid
    assert private.lost is None


@pytest.mark.parametrize("answer", [b"", b"+"])
def test_a_server_that_does_not_go_on(answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_start, "_SECONDS", 1.0)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "socket"))
    assert not worker_start._is_forked(["worker.py"]), "there is no server"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "socket"))
        silent.listen()
        kept = list[socket.socket]()

        def say() -> None:
            kept.append(silent.accept()[0])
            kept[0].sendall(answer)

        answering = threading.Thread(target=say)
        answering.start()
        assert not worker_start._is_forked(["worker.py"])
        answering.join()
        kept[0].close()


def test_what_is_asked_for_in_part_leaves_no_stream_open() -> None:
    before = os.listdir("/proc/self/fd")
    for text in (b"{}", b"not JSON\n", b"", b"{}\n"):
        client, server = socket.socketpair()
        with client, server:
            socket.send_fds(client, [text or b"x"], (0, 1))
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ValueError), fork_server._received(server) as wanted:
                assert wanted is None
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        (["worker.py", "--language=PYTHON"], True),
        (["worker.py", "--language=PYTHON", "--serialized-runtime-env-context={}"], True),
        (
            [
                "worker.py",
                "--language=PYTHON",
                _context := "--serialized-runtime-env-context="
                + json.dumps(
                    {
                        "py_executable": sys.executable,
                        "env_vars": {},
                        "command_prefix": [],
                        "java_jars": [],
                        "override_worker_entrypoint": None,
                    }
                ),
            ],
            True,
        ),
        (["worker.py", "--language=PYTHON", _context.replace('"env_vars": {}', '"env_vars": {"A": "1"}')], False),
        (["worker.py", "--language=PYTHON", _context.replace(sys.executable, "/another/python")], False),
        (
            ["worker.py", "--language=PYTHON", _context.replace('"command_prefix": []', '"command_prefix": ["x"]')],
            False,
        ),
        (["-s", "worker.py", "--language=PYTHON"], False),
        (["worker.py", "--language=JAVA"], False),
        ([], False),
    ],
)
def test_only_plain_workers_are_forked(words: list[str], plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/somewhere")
    assert _is_plain(words) is plain
    monkeypatch.delenv(VARIABLE)
    assert not _is_plain(words)

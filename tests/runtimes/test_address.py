"""A cluster at which nothing answers is refused at once, where Ray would try again for minutes."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest
import ray

from engine.errors import PlanError
from engine.recipes import Plan
from engine.runtimes.ray import address
from engine.runtimes.ray.cluster import connect


def test_nothing_answers_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("Ray would try again for minutes"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    # A cluster without a token would be refused in turn.
    remedy = "`ray get-auth-token --generate` and `RAY_AUTH_MODE=token ray start --head`"
    with pytest.raises(PlanError, match=rf"plan\.address=127\.0\.0\.1:{port}: nothing answers there.*{remedy}"):
        connect(Plan(address=f"127.0.0.1:{port}"), 1)


def test_what_ray_finds_by_itself_must_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray finds the private Ray of another training as well, and takes an address for it that nobody else may use."""
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("Ray would try again for minutes"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(PlanError, match=rf"plan\.address=auto, which is .*:{port}: nothing answers there"):
        connect(Plan(address="auto"), 1)


@pytest.mark.parametrize("word", ["somewhere", "ray://127.0.0.1:10001", "127.0.0.1:", ":6379"])
def test_what_is_no_address(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("not an address"))
    with pytest.raises(PlanError, match="expected auto, or HOST:PORT"):
        connect(Plan(address=word), 1)


def test_something_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("Ray would try again for minutes"))
    monkeypatch.setattr(address, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(PlanError, match=rf"127\.0\.0\.1:{port}: something listens there, but says nothing"):
            connect(Plan(address=f"127.0.0.1:{port}"), 1)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"SSH-2.0-x\r\n"])
def test_something_else_listens(words: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("Ray would try again for minutes"))

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        port = server.getsockname()[1]
        with pytest.raises(PlanError, match="what listens there is no head of a Ray cluster"):
            connect(Plan(address=f"127.0.0.1:{port}"), 1)


@pytest.mark.parametrize(
    ("wanted", "of_environment", "is_taken"),
    [
        ("10.0.0.1:6379", None, True),
        ("10.0.0.1:6380", None, False),
        ("10.0.0.2:6379", None, False),
        ("127.0.0.1:6379", None, False),
        ("auto", None, True),
        ("auto", "10.0.0.1:6379", True),
        ("auto", "10.0.0.2:6379", False),
    ],
)
def test_another_ray_than_that_of_this_process(
    wanted: str, of_environment: str | None, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is connected would be used in place of the cluster that the plan names."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.setattr("engine.runtimes.ray.cluster.smallest_store", lambda: 100)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if of_environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", of_environment)
    if is_taken:
        assert connect(Plan(address=wanted), 1) is False
    else:
        with pytest.raises(PlanError, match=r"connected to the Ray at 10\.0\.0\.1:6379: call ray\.shutdown\(\)"):
            connect(Plan(address=wanted), 1)


def test_a_head_on_this_machine_may_be_named_by_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.1")
    for wanted in ("127.0.0.1:6379", "localhost:6379", "10.0.0.1:6379"):
        address.check_same(wanted, "10.0.0.1:6379")
        address.check_same("10.0.0.1:6379", wanted)

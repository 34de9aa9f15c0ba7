"""A cluster at which nothing answers is refused at once, where Ray would try again for minutes."""

from __future__ import annotations

import socket

import pytest
import ray

from engine.errors import PlanError
from engine.recipes import Plan
from engine.runtimes.ray.cluster import connect


def test_nothing_answers_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("Ray would try again for minutes"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(PlanError, match=rf"plan\.address=127\.0\.0\.1:{port}: nothing answers there"):
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


@pytest.mark.parametrize("address", ["somewhere", "ray://127.0.0.1:10001", "127.0.0.1:", ":6379"])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *words, **more: pytest.fail("not an address"))
    with pytest.raises(PlanError, match="expected auto, or HOST:PORT"):
        connect(Plan(address=address), 1)

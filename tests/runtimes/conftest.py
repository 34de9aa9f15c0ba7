"""What do the tests of direct links share: links of every kind that are made without actors, and threads beside."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.runtimes.ray.links import HostCopies, Links, PlannedLink, Rendezvous, Route, Way, rings
from engine.runtimes.ray.links.rendezvous import SECRET_BYTES


def _meet(
    routes: tuple[Route, ...], way: Way, copies: Callable[[], Any] = HostCopies, timeout: float = 20.0
) -> dict[str, Links]:
    names = {name for route in routes for name in (route.giver, route.taker)}
    meetings = {name: Rendezvous(name, "127.0.0.1" if way == "tcp" else None) for name in names}
    links = [PlannedLink(route, way, way != "tcp", meetings[route.taker].address) for route in routes]
    secret = secrets.token_bytes(SECRET_BYTES)
    with ThreadPoolExecutor(len(names) or 1) as pool:
        found = {name: pool.submit(meetings[name].meet, links, secret, copies(), timeout) for name in names}
    return {name: future.result() for name, future in found.items()}


@pytest.fixture(scope="session")
def meet() -> Callable[..., dict[str, Links]]:
    """Give a test what returns each learner's links, made as actors make them."""
    return _meet


@pytest.fixture(params=["memory", "tcp", "gpu_memory", "nccl"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Way:
    """Everything but what a driver does: memory of a GPU is a file's here, and NCCL's group is one of gloo."""
    found: Way = request.param
    files = (tmp_path / str(number) for number in itertools.count())

    def mapped(path: str, size: int) -> Tensor:
        return torch.from_file(path, shared=True, size=size, dtype=torch.uint8)

    def offer(size: int, _: torch.device) -> tuple[Tensor, bytes]:
        path = str(next(files))
        return mapped(path, size), f"{path}:{size}".encode()

    def accept(words: bytes, _: torch.device) -> Tensor:
        path, _, size = words.decode().rpartition(":")
        return mapped(path, int(size))

    monkeypatch.setattr(rings, "offer", offer)
    monkeypatch.setattr(rings, "accept", accept)
    return found


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool

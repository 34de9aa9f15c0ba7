"""What do the tests of direct links share: a way to make them without actors."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.runtimes.ray.links import HostCopies, Links, PlannedLink, Rendezvous, Route, Way
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

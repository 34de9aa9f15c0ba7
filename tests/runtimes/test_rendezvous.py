"""Do the two ends of each direct link meet, and nobody else, and is it said why two could not?"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from engine.errors import LearnerError
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links import HostCopies, Links, PlannedLink, Rendezvous, Route, Way, rings
from engine.runtimes.ray.links.rendezvous import SECRET_BYTES
from tests.runtimes.giver_and_taker import PATIENCE, ROUTE, _tensor

Meet = Callable[..., dict[str, Links]]


def test_strangers_are_sent_away(way: Way, beside: ThreadPoolExecutor) -> None:
    """Whoever does not know the secret, says nothing, or asks for another link."""
    rendezvous = Rendezvous("taker", "127.0.0.1" if way == "tcp" else None)
    link, secret = PlannedLink(ROUTE, way, way != "tcp", rendezvous.address), secrets.token_bytes(SECRET_BYTES)
    met = beside.submit(rendezvous.meet, [link], secret, HostCopies(), PATIENCE)
    family, address = (
        (socket.AF_UNIX, rendezvous.address.unix)
        if way != "tcp"
        else (socket.AF_INET, (rendezvous.address.host, rendezvous.address.port))
    )
    for words in (b"", b"short", b"x" * SECRET_BYTES + bytes(4), secret + b"\x07\0\0\0"):
        with socket.socket(family, socket.SOCK_STREAM) as stranger:
            stranger.connect(address)
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
            stranger.settimeout(PATIENCE)
            assert stranger.recv(1) == b""
    assert not met.done()
    giver = Rendezvous("giver", None)
    ends = giver.meet([link], secret, HostCopies(), PATIENCE)
    ends.giving["taker"].give("first", _tensor(3))
    assert met.result(PATIENCE).taking["giver"].take("first").equal(_tensor(3))


def test_a_partner_that_does_not_come_is_an_error(way: Way) -> None:
    rendezvous = Rendezvous("taker", "127.0.0.1" if way == "tcp" else None)
    link = PlannedLink(ROUTE, way, way != "tcp", rendezvous.address)
    with pytest.raises(LostStep, match="learner taker: a partner did not come to be linked"):
        rendezvous.meet([link], b"", HostCopies(), 0.1)


def test_a_gpu_whose_memory_cannot_be_shared_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, beside: ThreadPoolExecutor
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("CUDA error: invalid device context")

    monkeypatch.setattr(rings, "offer", refuse)
    meetings = {name: Rendezvous(name, None) for name in ("giver", "taker")}
    links = [PlannedLink(ROUTE, "gpu_memory", True, meetings["taker"].address)]
    met = {
        name: beside.submit(rendezvous.meet, links, bytes(SECRET_BYTES), HostCopies(), PATIENCE)
        for name, rendezvous in meetings.items()
    }
    with pytest.raises(
        LearnerError, match=r"learner giver: could not be linked to taker in the memory of their GPU"
    ) as e:
        met["giver"].result(PATIENCE)
    assert "plan.transport=direct_host" in str(e.value)
    with pytest.raises(LostStep, match="learner taker"):
        met["taker"].result(PATIENCE)


def test_cycles_of_groups_come_about(meet: Meet) -> None:
    """As in a cohort, where everybody gives everybody something: groups are made by two at a time."""
    names = ("a", "b", "c")
    routes = tuple(Route(x, y, ("p",), 1024) for x in names for y in names if x != y)
    links = meet(routes, "nccl")
    for name, own in links.items():
        for taker, end in own.giving.items():
            end.give("p", torch.tensor([names.index(name), names.index(taker)]))
    for name, own in links.items():
        for giver, end in own.taking.items():
            assert end.take("p").tolist() == [names.index(giver), names.index(name)]

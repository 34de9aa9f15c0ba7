"""How do two learners get a link: memory that nobody else can find, and a connection that nobody else can use?

On one node a ring is memory without a name (memfd), handed over through a Unix socket that has no file either, so
nothing is left behind however the learners end. Between nodes, and where a system has neither, it is a TCP connection
on the address by which Ray reaches the node; both ends know a secret, and nothing listens once all have met.
"""

from __future__ import annotations

import contextlib
import hmac
import mmap
import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import LearnerError
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links.copies import Copies
from engine.runtimes.ray.links.ends import GivingEnd, TakingEnd
from engine.runtimes.ray.links.routes import Route

SECRET_BYTES = 16
# Secret, and the place of the route in the list that all have.
_HELLO = struct.Struct(f"<{SECRET_BYTES}sI")
_HELLO_WITHIN_SECONDS = 5.0
_CREDENTIALS = struct.Struct("3i")
# A node that vanishes without a word is noticed after this many seconds.
_SILENCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}

HAS_NAMELESS_MEMORY = hasattr(os, "memfd_create")


@dataclass(frozen=True)
class Address:
    """Where a learner can be met.

    Attributes:
        unix: name of its Unix socket in Linux's abstract namespace; empty without one.
        host: of its TCP socket; empty without one.
        port: of its TCP socket.
    """

    unix: bytes = b""
    host: str = ""
    port: int = 0


@dataclass(frozen=True)
class PlannedLink:
    """A link that is to be made.

    Attributes:
        route: who gives whom what.
        shared: whether through memory that both see, or through TCP.
        address: where the taker can be met.
    """

    route: Route
    shared: bool
    address: Address


@dataclass(frozen=True)
class Links:
    """A learner's ends of its links.

    Attributes:
        giving: by the name of the taker.
        taking: by the name of the giver.
    """

    giving: Mapping[str, GivingEnd]
    taking: Mapping[str, TakingEnd]

    def close(self) -> None:
        """End all of them: every partner that waits for this learner wakes up."""
        for giving in self.giving.values():
            giving.close()
        for taking in self.taking.values():
            taking.close()


class Meeting:
    """Lets the partners of a learner in, until all are there.

    Args:
        learner: its name.
        host: address by which other nodes reach this one; None where all partners are here.
    """

    def __init__(self, learner: str, host: str | None) -> None:
        self._learner = learner
        self._unix: socket.socket | None = None
        self._tcp: socket.socket | None = None
        unix = b""
        if HAS_NAMELESS_MEMORY:
            unix = b"\0local-learning-" + secrets.token_hex(16).encode()
            self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._unix.bind(unix)
            self._unix.listen()
        if host is not None:
            self._tcp = socket.create_server((host, 0))
        self.address = Address(unix, *(self._tcp.getsockname()[:2] if self._tcp is not None else ()))

    def meet(self, links: Sequence[PlannedLink], secret: bytes, copies: Copies, timeout: float) -> Links:
        """Make all of the learner's links.

        Args:
            links: of the whole team, in the same order for all.
            secret: that the team shares.
            copies: from and to the learner's device.
            timeout: seconds after which a partner is given up.

        Raises:
            LostStep: a partner did not come.
            LearnerError: memory is short.
        """
        deadline = time.monotonic() + timeout
        giving, taking = {}, {}
        try:
            # Whoever is called need not have answered yet, so calling first and answering then never blocks.
            for number, link in enumerate(links):
                if link.route.giver == self._learner:
                    connection, memory = _call(link, number, secret, timeout)
                    giving[link.route.taker] = GivingEnd(link.route, connection, memory, copies, link.shared)
            missing = {number for number, link in enumerate(links) if link.route.taker == self._learner}
            while missing:
                shared = any(links[number].shared for number in missing)
                number, connection, memory = self._answer(links, missing, secret, shared, deadline)
                missing.remove(number)
                route = links[number].route
                taking[route.giver] = TakingEnd(route, connection, memory, copies, links[number].shared)
        except (TimeoutError, ConnectionError) as error:
            raise LostStep(f"learner {self._learner}: a partner did not come to be linked ({error})") from error
        except OSError as error:
            raise LearnerError(self._learner, f"could not be linked to its partners: {error}") from error
        finally:
            self.close()
        return Links(giving, taking)

    def _answer(
        self, links: Sequence[PlannedLink], missing: set[int], secret: bytes, shared: bool, deadline: float
    ) -> tuple[int, socket.socket, np.ndarray]:
        listener = self._unix if shared else self._tcp
        assert listener is not None
        while True:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            connection, _ = listener.accept()
            # A stranger, who may also just stay silent, is sent away; the partner is still to come.
            with contextlib.suppress(OSError, struct.error):
                connection.settimeout(_HELLO_WITHIN_SECONDS)
                if not shared or _is_own_user(connection):
                    hello, descriptors, _, _ = (
                        socket.recv_fds(connection, _HELLO.size, 1)
                        if shared
                        else (connection.recv(_HELLO.size, socket.MSG_WAITALL), [], 0, None)
                    )
                    found, number = _HELLO.unpack(hello)
                    known = number in missing and links[number].shared == shared
                    if hmac.compare_digest(found, secret) and known:
                        size = links[number].route.bytes
                        memory = _mapped(descriptors[0], size) if shared else _mapped(-1, size)
                        return number, _settled(connection), memory
            connection.close()

    def close(self) -> None:
        """Let nobody else in."""
        for listener in (self._unix, self._tcp):
            if listener is not None:
                listener.close()


def _call(link: PlannedLink, number: int, secret: bytes, timeout: float) -> tuple[socket.socket, np.ndarray]:
    """Connect to a taker, and hand over the memory of the ring."""
    size, hello = link.route.bytes, _HELLO.pack(secret, number)
    if not link.shared:
        connection = socket.create_connection((link.address.host, link.address.port), timeout)
        connection.sendall(hello)
        return _settled(connection), _mapped(-1, size)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    connection.connect(link.address.unix)
    descriptor = os.memfd_create("learner-link")
    # Reserved here, where a lack of memory is an error; later it would be a signal.
    os.posix_fallocate(descriptor, 0, size)
    socket.send_fds(connection, [hello], [descriptor])
    return _settled(connection), _mapped(descriptor, size)


def _mapped(descriptor: int, size: int) -> np.ndarray:
    """Return memory, uint8 [size]: of the descriptor, which is closed, or of this process alone if it is -1."""
    try:
        return np.frombuffer(mmap.mmap(descriptor, size), dtype=np.uint8)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _settled(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _SILENCE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _is_own_user(connection: socket.socket) -> bool:
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(content)[1]) == os.getuid()

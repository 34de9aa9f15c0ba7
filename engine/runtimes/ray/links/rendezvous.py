"""Rendezvous of two learners: memory that nobody else can find, and a connection that nobody else can use.

On one node they meet at a Unix socket that has no file, through which memory of the host without a name (memfd) is
handed over, so nothing is left behind however the learners end. Between nodes, and where a system has neither, they
meet by TCP at the address by which Ray reaches the node. Both ends know a secret; once all have met, nothing listens.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import LearnerError
from engine.learners import explain
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links.copies import Copies
from engine.runtimes.ray.links.ends import GivingEnd, TakingEnd
from engine.runtimes.ray.links.rings import WORDS, Way, make_ring
from engine.runtimes.ray.links.routes import Route

SECRET_BYTES = 16
# Secret, and the place of the route in the list that all have.
_HELLO = struct.Struct(f"<{SECRET_BYTES}sI")
_HELLO_WITHIN_SECONDS = 5.0
_CREDENTIALS = struct.Struct("3i")
# A node that vanishes without a word is noticed after half a minute: by questions where nothing is under way, and else
# because nothing that was sent is answered.
_SILENCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}

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
        way: in which what is given travels.
        here: whether both ends are on one node, and meet at a Unix socket.
        address: where the taker can be met.
    """

    route: Route
    way: Way
    here: bool
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


class Rendezvous:
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
        met: dict[int, tuple[socket.socket, int]] = {}
        try:
            # Whoever is called need not have answered yet, so calling first and answering then never blocks.
            for number, link in enumerate(links):
                if link.route.giver == self._learner:
                    met[number] = _call(link, number, secret, timeout)
            missing = {number for number, link in enumerate(links) if link.route.taker == self._learner}
            while missing:
                number, connection, descriptor = self._answer(links, missing, secret, deadline)
                missing.remove(number)
                met[number] = connection, descriptor
            # In an order that all have, so that the two ends of a link are at it together.
            ends = {number: self._end(links[number], *met[number], copies, timeout) for number in sorted(met)}
        except (TimeoutError, ConnectionError) as error:
            raise LostStep(f"learner {self._learner}: a partner did not come to be linked ({error})") from error
        except OSError as error:
            raise LearnerError(self._learner, f"could not be linked to its partners: {error}") from error
        finally:
            self.close()
        return Links(
            {links[number].route.taker: end for number, end in ends.items() if isinstance(end, GivingEnd)},
            {links[number].route.giver: end for number, end in ends.items() if isinstance(end, TakingEnd)},
        )

    def _end(
        self, link: PlannedLink, connection: socket.socket, descriptor: int, copies: Copies, timeout: float
    ) -> GivingEnd | TakingEnd:
        gives, size = link.route.giver == self._learner, link.route.bytes
        connection.settimeout(timeout)
        try:
            memory, transport = make_ring(link.way, size, connection, descriptor, gives, copies.device)
        except RuntimeError as error:
            connection.close()
            partner = link.route.taker if gives else link.route.giver
            raise LearnerError(
                self._learner,
                f"could not be linked to {partner} {WORDS[link.way]}: {explain(error)}; with "
                "plan.transport=direct_host messages pass through the memory of the host",
            ) from error
        _settle(connection)
        end = GivingEnd if gives else TakingEnd
        return end(link.route, connection, memory, copies, transport)

    def _answer(
        self, links: Sequence[PlannedLink], missing: set[int], secret: bytes, deadline: float
    ) -> tuple[int, socket.socket, int]:
        here = any(links[number].here for number in missing)
        listener = self._unix if here else self._tcp
        assert listener is not None
        while True:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            connection, _ = listener.accept()
            # A stranger, who may also just stay silent, is sent away; the partner is still to come.
            with contextlib.suppress(OSError, struct.error):
                connection.settimeout(_HELLO_WITHIN_SECONDS)
                if not here or _is_own_user(connection):
                    hello, descriptors, _, _ = (
                        socket.recv_fds(connection, _HELLO.size, 1)
                        if here
                        else (connection.recv(_HELLO.size, socket.MSG_WAITALL), [], 0, None)
                    )
                    found, number = _HELLO.unpack(hello)
                    known = number in missing and links[number].here == here
                    if hmac.compare_digest(found, secret) and known:
                        return number, connection, descriptors[0] if links[number].way == "memory" else -1
            connection.close()

    def close(self) -> None:
        """Let nobody else in."""
        for listener in (self._unix, self._tcp):
            if listener is not None:
                listener.close()


def _call(link: PlannedLink, number: int, secret: bytes, timeout: float) -> tuple[socket.socket, int]:
    """Connect to a taker, and hand over memory of the host where that is the way; -1 stands for none."""
    hello = _HELLO.pack(secret, number)
    if not link.here:
        connection = socket.create_connection((link.address.host, link.address.port), timeout)
        connection.sendall(hello)
        return connection, -1
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    connection.connect(link.address.unix)
    if link.way != "memory":
        connection.sendall(hello)
        return connection, -1
    descriptor = os.memfd_create("learner-link")
    # Reserved here, where a lack of memory is an error; later it would be a signal.
    os.posix_fallocate(descriptor, 0, link.route.bytes)
    socket.send_fds(connection, [hello], [descriptor])
    return connection, descriptor


def _settle(connection: socket.socket) -> None:
    connection.settimeout(None)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _SILENCE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _is_own_user(connection: socket.socket) -> bool:
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(content)[1]) == os.getuid()

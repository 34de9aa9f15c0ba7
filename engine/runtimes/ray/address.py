"""Probe of a Ray's address before Ray itself, which would try again for many minutes, deaf to Ctrl-C."""

from __future__ import annotations

import ipaddress
import os
import socket
import time

from engine.errors import PlanError

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
# RFC 9113: what a client of gRPC says first, and the type of the frame with which every server answers.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEADER_BYTES = 9
_SETTINGS_FRAME = 4
START_ONE = (
    "start one with `ray get-auth-token --generate` and `RAY_AUTH_MODE=token ray start --head`, or with "
    "`ray up cluster.yaml`, or leave plan.address out for a private Ray"
)
"""What a user can do who has no cluster: one without a token would be refused."""


def check_answers(address: str) -> str | None:
    """Refuse an address at which nothing answers, or something that is no Ray.

    Args:
        address: ``auto``, or HOST:PORT of a cluster's head.

    Returns:
        HOST:PORT of the head that answers; None where only Ray itself knows it.

    Raises:
        PlanError: says what is there.
    """
    found = _found_by_ray() if address == "auto" else address
    if found is None:
        return None
    host, _, port = found.rpartition(":")
    if "://" in found or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise PlanError(
            f"plan.address={address}: expected auto, or HOST:PORT of the cluster's head, such as 10.0.0.1:6379"
        )
    which = f", which is {found}" if found != address else ""
    private = "; the private Ray of another training on this machine is no cluster" if found != address else ""
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS)
    except OSError as error:
        raise PlanError(
            f"plan.address={address}{which}: nothing answers there ({error}){private}; {START_ONE}"
        ) from error
    with connection:
        # With TLS nothing is said before both sides have shown who they are.
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return found
        what = _what_it_says(connection)
    if what is not None:
        raise PlanError(f"plan.address={address}{which}: {what}{private}; {START_ONE}")
    return found


def check_same(address: str, connected: str) -> None:
    """Refuse a plan's address where this process is connected to another Ray, which would be used in its place.

    Args:
        address: as of `check_answers`; ``auto`` is the connected one, unless RAY_ADDRESS names a Ray.
        connected: HOST:PORT of the head of the connected Ray.

    Raises:
        PlanError: names both.
    """
    wanted = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if wanted == "auto" or _places(wanted) & _places(connected):
        return
    which = f", which is {wanted}" if wanted != address else ""
    raise PlanError(
        f"plan.address={address}{which}: this process is connected to the Ray at {connected}: call ray.shutdown() "
        "before, or leave plan.address out to use that one"
    )


def _places(address: str) -> set[tuple[str, str]]:
    """Return the addresses that a HOST:PORT has in numbers, each with the port; as it is written where it has none."""
    host, _, port = address.rpartition(":")
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return {(host, port)}
    # A head on this machine is known by the machine's address, and may be named by that of loopback.
    if any(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found):
        found |= _here()
    return {(one, port) for one in found}


def _here() -> set[str]:
    from ray.util import get_node_ip_address

    return {"127.0.0.1", get_node_ip_address()}


def _what_it_says(connection: socket.socket) -> str | None:
    """Return what is wrong with how the other side answers a client of gRPC; None if it answers as a server of it."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    answer = b""
    try:
        connection.sendall(_GREETING)
        while len(answer) < _FRAME_HEADER_BYTES:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            piece = connection.recv(_FRAME_HEADER_BYTES - len(answer))
            if not piece:
                return "what listens there is no head of a Ray cluster, for it hangs up"
            answer += piece
    except TimeoutError:
        return f"something listens there, but says nothing for {_ANSWER_SECONDS:g} s"
    except OSError as error:
        return f"what listens there is no head of a Ray cluster ({error})"
    return None if answer[3] == _SETTINGS_FRAME else "what listens there is no head of a Ray cluster"


def _found_by_ray() -> str | None:
    """Return the address that Ray takes ``auto`` for; None where Ray itself has to say."""
    from ray._private import services

    # Not public, so not relied on: without it Ray is asked, as before.
    find = getattr(services, "canonicalize_bootstrap_address", None)
    try:
        found = find("auto") if find is not None else None
    except (ConnectionError, ValueError):
        return None
    return found if isinstance(found, str) and "://" not in found else None

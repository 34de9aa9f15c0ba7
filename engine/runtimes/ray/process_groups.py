"""The store at which replicas of a learner meet, and the network interface through which they talk.

At a port of the first one's node: of the loopback interface where the whole team is on one node, and otherwise of the
address by which Ray reaches the node. Whoever wants another interface names it, as users of gloo and NCCL do, in
GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil
import torch.distributed

from engine.learners import PATIENCE, Replicas

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """Where a replica stands among those of its learner.

    Attributes:
        index: r = 0..R-1.
        count: R.
        host: address of the first replica's node.
        port: at which the first replica waits.
        address: of this replica's own node.
        backend: of torch.distributed.
    """

    index: int
    count: int
    host: str
    port: int
    address: str
    backend: str

    def meet(self, door: socket.socket | None) -> Replicas:
        """Meet the others; waits for all of them.

        Args:
            door: where the first replica lets the others in; None for them.
        """
        talk_through(self.address)
        store = torch.distributed.TCPStore(
            self.host,
            self.port,
            self.count,
            door is not None,
            PATIENCE,
            # Given, or it would listen on every interface.
            master_listen_fd=door.detach() if door is not None else None,
        )
        return Replicas(self.index, self.count, store, self.backend)


def talk_through(address: str) -> None:
    """Let gloo and NCCL talk, and listen, through the interface that has an address of this node, and no other."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(variable, name)

"""Where do the replicas of a learner meet?

In a file on one node, where they talk over the loopback interface; at a port of the first one's node otherwise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch.distributed

from engine.learners import PATIENCE, Replicas


@dataclass(frozen=True)
class Place:
    """Where a replica stands among those of its learner.

    Attributes:
        index: r = 0..R-1.
        count: R.
        meeting: a file on the one node of all replicas, or ``HOST:PORT`` on the node of the first.
        backend: of torch.distributed.
    """

    index: int
    count: int
    meeting: str
    backend: str

    def meet(self) -> Replicas:
        """Meet the others; waits for all of them."""
        host, _, port = self.meeting.rpartition(":")
        store: torch.distributed.Store
        if host:
            store = torch.distributed.TCPStore(host, int(port), self.count, self.index == 0, PATIENCE)
        else:
            # Nothing outside this machine has any business here.
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            store = torch.distributed.FileStore(self.meeting, self.count)
        return Replicas(self.index, self.count, store, self.backend)

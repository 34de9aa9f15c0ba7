"""Replicas: several actors that train one learner, each on a part of every batch.

A replica computes the same network on its own rows of the batch. Losses are weighted by the share of the rows,
gradients are added up over all replicas, and batch norms see all rows, so that the step is that of one device with
the whole batch, up to the order of sums. All replicas add up alike, to the last bit, and stay equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import Store

from engine.learners.lost_replica import exchanging
from engine.learners.synchronised_norms import synchronise_norms

# A replica waits for the others in every step; one that has failed says so at once, by closing its connections.
PATIENCE = timedelta(minutes=10)


def replica_name(name: str, replica: int) -> str:
    """Return the name of replica r = 0..R-1 of a learner, or of the message that it gives."""
    return f"{name}_replica{replica}"


def name_without_replica(name: str) -> str:
    """Return the learner or message of whose replica this is the name; the name itself, where it is of none."""
    plain, found, _ = name.rpartition("_replica")
    return plain if found else name


class Replicas:
    """One of the actors that train a learner together.

    Args:
        index: of this one, r = 0..R-1.
        count: R.
        store: where the replicas find one another.
        backend: of torch.distributed: ``gloo``, or ``nccl`` where each replica has a GPU of its own.
    """

    def __init__(self, index: int, count: int, store: Store, backend: str) -> None:
        self.index, self.count = index, count
        torch.distributed.init_process_group(backend, store=store, rank=index, world_size=count, timeout=PATIENCE)
        group = torch.distributed.group.WORLD
        assert group is not None
        self._group = group
        # Connections are made at the first exchange: now, while the place of meeting is there.
        torch.distributed.barrier(group)

    def rows(self, whole: Tensor) -> Tensor:
        """Return this replica's rows of what is given for the whole batch, [B, ...]; parts differ by one at most."""
        return whole.tensor_split(self.count)[self.index]

    def synchronise_norms(self, *modules: nn.Module) -> None:
        """Let batch norms see the images of all replicas."""
        for module in modules:
            synchronise_norms(module, self._group)

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all replicas, in one exchange for all of them."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        with exchanging():
            torch.distributed.all_reduce(together, group=self._group)
        for gradient, summed in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def part(self) -> None:
        """Close the connections: replicas that wait for this one fail at once."""
        torch.distributed.destroy_process_group()

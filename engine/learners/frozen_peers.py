"""Codistillation: copies of the peers' networks as they were at the last exchange."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.data import Batch
from engine.learners.hooks import statistics_untracked
from engine.learners.memory import tensor_bytes
from engine.streams import seeded


class FrozenPeer:
    """A copy of a peer, which says what the peer would have predicted with the weights of the last exchange.

    It predicts as the peer itself does while it trains, from the statistics of the batch and with the peer's own
    random stream, so a copy of the newest weights says exactly what the peer says (codistillation, Anil et al. 2018).

    Args:
        body: a network of the peer's shape; its weights do not matter.
        predictions: name of the message that the copy stands in for.
        seed: of the peer's random stream.
        stream: name of the peer's random stream.
    """

    def __init__(self, body: nn.Sequential, predictions: str, seed: int, stream: str) -> None:
        self.body = body.requires_grad_(False).train()
        self.predictions = predictions
        self._stream = (seed, stream)
        self._adopted = False

    def adopt(self, weights: Tensor) -> None:
        """Take up the peer's weights, as `flat_weights` returned them."""
        start = 0
        for parameter in self.body.parameters():
            values = weights[start : start + parameter.numel()]
            parameter.copy_(values.view_as(parameter))
            start += parameter.numel()
        self._adopted = True

    def state(self) -> Tensor | None:
        """Return a copy of the weights, as `adopt` takes them; None before the first exchange."""
        return flat_weights(self.body).cpu() if self._adopted else None

    def predict(self, inputs: Tensor, batch: Batch) -> Tensor | None:
        """Return class logits [B, classes] of normalised images; None before the first exchange."""
        if not self._adopted:
            return None
        stream = seeded(*self._stream, "forward", batch.epoch, batch.step, device=inputs.device)
        with torch.no_grad(), statistics_untracked(self.body), stream:
            logits: Tensor = self.body(inputs)
            return logits


class FrozenPeers:
    """All copies that a learner keeps, by the name of the message that brings their weights."""

    def __init__(self, peers: Mapping[str, FrozenPeer]) -> None:
        self._peers = dict(peers)

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def bodies(self) -> list[nn.Sequential]:
        """The networks."""
        return [peer.body for peer in self._peers.values()]

    @property
    def bytes(self) -> int:
        """Bytes of all weights."""
        return sum(tensor_bytes(body.parameters()) for body in self.bodies)

    def adopt(self, messages: Mapping[str, Tensor]) -> None:
        """Put the weights [N] that peers published into the copies of them."""
        for name, weights in messages.items():
            self._peers[name].adopt(weights)

    def predictions(self, inputs: Tensor, batch: Batch, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return class logits [B, classes] under the names of the messages that the copies stand in for."""
        said = {peer.predictions: peer.predict(inputs, batch) for peer in self._peers.values()}
        return {name: logits.to(dtype) for name, logits in said.items() if logits is not None}

    def state(self) -> dict[str, Tensor]:
        """Return the weights of the copies that have been exchanged, for a checkpoint."""
        found = {f"frozen.{name}": peer.state() for name, peer in self._peers.items()}
        return {name: weights for name, weights in found.items() if weights is not None}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the weights of a checkpoint."""
        self.adopt({name: tensors[f"frozen.{name}"] for name in self._peers if f"frozen.{name}" in tensors})


def flat_weights(body: nn.Module) -> Tensor:
    """Return all parameters of a body one after another, float32 [N], without a graph."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in body.parameters()])

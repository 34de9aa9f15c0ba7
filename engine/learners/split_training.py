"""Split training: a network and its branches that learn together on several devices.

The one place where gradients cross learners: a `SideBranch` takes features of the `Trunk`, learns on them, and gives
back the gradient of its loss in these features, in the same step. The sums are those of one learner that holds all
branches, in the same order, so the weights are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import Batch
from engine.learners.learner import Learner
from engine.learners.member import PhaseFunction
from engine.learners.propagation import Learned, Pending
from engine.objectives import Context
from engine.streams import continued, positions, seeded


@dataclass
class _Forked:
    """What the trunk has computed of a step.

    Attributes:
        batch: of the step.
        outputs: of the blocks that have a branch, by block, with their graph.
        end: the last one's, without its graph: where the rest of the network begins.
        since: how far the random stream of the forward pass has come.
    """

    batch: Batch
    outputs: dict[str, Tensor]
    end: Tensor
    since: list[Tensor]


class Trunk(Learner):
    """The network itself, while its branches are learners of their own.

    It gives features as soon as it has them: the rest of the network and all branches then compute at the same time,
    forward and backward, until the gradients come back.

    Args:
        forks: names of the blocks whose outputs are given, in this order.
        arguments: as those of `Learner`.
    """

    def __init__(self, forks: Sequence[str], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._forks = tuple(forks)
        names = [name for name, _ in self.body.named_children()]
        self._stop = 1 + max(names.index(fork) for fork in forks)
        self._forked: _Forked | None = None
        self._learned: Learned | None = None

    # What the branches give back is of the same step.
    passes_gradients_on = True

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        """What it can do, by name."""
        return {**super().phases, "conclude": self.conclude, "learn": self.learn}

    def forward(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the blocks up to the last fork.

        Returns:
            features [B, ...] at each fork, detached, in the recipe's precision.
        """
        self._meters.resume()
        if not self.body.training:
            self.body.train()
        features = self._inputs.prepared(self._inputs.training_pixels(batch))
        outputs: dict[str, Tensor] = {}
        role, device = self._role, self.device
        stream = seeded(role.seed, role.stream, "forward", batch.epoch, batch.step, device=device)
        with self._memory.counting(), stream, self._propagation.autocast():
            blocks: list[nn.Module] = []
            for name, block in list(self.body.named_children())[: self._stop]:
                blocks.append(block)
                if name in self._forks:
                    features, blocks = self._propagation.through(blocks, features), []
                    outputs[name] = features
                    # As `OutputHooks`: the gradients of what follows are added up before they meet the branch's.
                    features = features.view_as(features)
            since = positions(device)
        self._forked = _Forked(batch, outputs, features.detach().requires_grad_(), since)
        return tuple(outputs[fork].detach().to(self._dtype) for fork in self._forks)

    def conclude(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the rest of the network on what `forward` left.

        Returns:
            the class logits [B, classes], detached, if the role states them.
        """
        forked = self._forked
        assert forked is not None, "conclude without a forward before it"
        stream = continued(forked.since, self.device)
        with self._memory.counting(), stream, self._propagation.autocast():
            output = self._propagation.through(list(self.body[self._stop :]), forked.end, ends=True)
        self._pending = Pending(forked.batch, None, None, output, output, {})
        return self._outputs.of(self._outputs.gives, self._pending.values)

    def learn(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Compute the objective, and go backward to the last fork.

        Args:
            batch: not needed.
            messages: what the terms of the objective take of the branches.

        Raises:
            NotFinite: a loss term is not finite; raised before the weights change.
        """
        pending, self._pending = self._pending, None
        assert pending is not None, "learn without a conclude before it"
        labels = self._inputs.labels(pending.batch)
        with self._memory.counting():
            context = Context(labels.own, None, messages, pending.predictions)
            self._learned = self._propagation.learn(pending, context)
        return ()

    def update(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Go backward through the trunk, and step the optimizer.

        Args:
            batch: not needed.
            messages: the gradients of the branches' losses in the features at the forks, in their order.
        """
        forked, self._forked = self._forked, None
        learned, self._learned = self._learned, None
        assert forked is not None and learned is not None, "update without a learn before it"
        assert forked.end.grad is not None
        ends = list(forked.outputs)[-1]
        gradients = dict(zip(self._forks, messages.values(), strict=True))
        roots, given = list(forked.outputs.values()), []
        for block, output in forked.outputs.items():
            layout = torch.channels_last if _is_channels_last(output) else torch.contiguous_format
            gradient = gradients[block].to(output.dtype).contiguous(memory_format=layout)
            given.append(forked.end.grad + gradient if block == ends else gradient)
        torch.autograd.backward(roots, given)
        self._step(forked.batch, learned, self._inputs.labels(forked.batch))
        return ()


class SideBranch(Learner):
    """A branch: learns on features of the trunk, and tells the trunk how they should change."""

    passes_gradients_on = True
    _features: Tensor | None = None

    def forward(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the branch on the features that the trunk gave; as `Learner.forward`."""
        (features,) = messages.values()
        self._features = features.detach().requires_grad_()
        return super().forward(batch, {"features": self._features})

    def update(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Learn as `Learner.update`.

        Returns:
            the gradient of the loss in the features, of their shape and in the recipe's precision.
        """
        super().update(batch, messages)
        features, self._features = self._features, None
        assert features is not None and features.grad is not None
        return (features.grad,)


def _is_channels_last(features: Tensor) -> bool:
    return features.dim() == 4 and features.is_contiguous(memory_format=torch.channels_last)

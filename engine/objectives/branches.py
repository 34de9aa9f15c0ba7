"""Losses of classifiers on side branches: deep supervision, and mimicry among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.data import NO_LABEL
from engine.objectives.branch_mimicry import as_message, branch_mimicry, directions_record, kept_directions
from engine.objectives.classification import cross_entropy_loss
from engine.objectives.deep_supervision import DeepSupervisionSchedule, squared_hinge_loss
from engine.objectives.objective import Context, Term, TermValue
from engine.recipes import DeepSupervisionLoss, Directions
from engine.streams import seeded

_MAIN = "main"
_LABEL_LOSSES: Mapping[DeepSupervisionLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy_loss,
    "squared_hinge": squared_hinge_loss,
}


class BranchHead(nn.Module):
    """A branch of a network, from its fork to class logits.

    Args:
        name: of the head, unique in the network and not ``main``.
        fork: name of the block inside the body whose output it takes.
        blocks: map that output to logits ``[B, classes]``.
    """

    def __init__(self, name: str, fork: str, blocks: nn.Module) -> None:
        super().__init__()
        assert name != _MAIN, f"{_MAIN} is the network's own head"
        self.name = name
        self.fork = fork
        self.blocks = blocks

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of the fork's output ``[B, ...]``."""
        logits: Tensor = self.blocks(features)
        return logits


class Branches(Term):
    """Branches that the learner holds itself, beside its own head j = 0, whose label loss is another term's.

        f(e) (w sum_{j >= 1} [l_j - gamma]_+  +  alpha sum_j sum_{k != j} T^2 KL(p_k || p_j))

    l_j is the label loss of head j, with logits z_j; p_j = softmax(z_j / T), without gradient where it teaches. With
    alpha = 0 this is deep supervision: by linear heads DSN (Lee et al. 2015), by rich ones DSL. With alpha = 1 and all
    directions it is DKS (Sun et al. 2019), and DHM (Li & Chen 2020) as released. Where ``Context.predictions`` is None
    the branches mimic one another only. Images without a label count in the mimicry alone.

    Args:
        heads: the branches; where depth decides who learns from whom, from the one that forks off last.
        origin: seed and stream of the learner; the branches draw from streams of their own.
        label_weight: w.
        label_loss: kind of l.
        threshold: gamma; below it a branch no longer learns from labels.
        schedule: f(e); while it is 0 the branches are not computed. 1 unless given.
        weight: alpha; with 0 the mimicry is not computed.
        temperature: T, above 0.
        directions: who learns from whom; see ``kept_directions``.
        keep: for ``bernoulli``.
        measure_gradients_every: every so many steps of an epoch, compare the heads' gradients in the features that they
            share; 0 for never. Needs a body that is not compiled.
        own_smoothing: epsilon of label smoothing of the own head j = 0, for that comparison.
    """

    name = "branches"

    def __init__(
        self,
        heads: Sequence[BranchHead],
        *,
        origin: tuple[int, str],
        label_weight: float = 1.0,
        label_loss: DeepSupervisionLoss = "cross_entropy",
        threshold: float = 0.0,
        schedule: DeepSupervisionSchedule | None = None,
        weight: float = 0.0,
        temperature: float = 1.0,
        directions: Directions = "all",
        keep: float = 1.0,
        measure_gradients_every: int = 0,
        own_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        assert heads, "a network without a branch"
        assert len({head.name for head in heads}) == len(heads), "two branches of one name"
        assert 0 < temperature < math.inf, f"temperature {temperature} is not above 0"
        self.heads = nn.ModuleDict({head.name: head for head in heads})
        self.hooks = tuple(dict.fromkeys(head.fork for head in heads))
        self.origin = origin
        self.label_weight = label_weight
        self.label_loss: DeepSupervisionLoss = label_loss
        self.threshold = threshold
        self.schedule = schedule
        self.weight = weight
        self.temperature = temperature
        self.directions: Directions = directions
        self.keep = keep
        self.measure_gradients_every = measure_gradients_every
        self.own_smoothing = own_smoothing

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss, and what the heads do: label losses, accuracies, divergences, agreement of gradients.

        Where no image of a batch has a label, its accuracies are 0.
        """
        factor = 1.0 if self.schedule is None else self.schedule.factor(context.epoch)
        if not factor:
            return TermValue(features.new_zeros((), dtype=torch.float32))
        logits = self._logits(context)
        label_losses = {name: self._label_loss(logits[name], context) for name in self.heads}
        observed = {f"branches/{self.label_loss}/{name}": loss.detach() for name, loss in label_losses.items()}
        observed |= _accuracies(logits, context.labels)
        label_weight = factor * self.label_weight
        taught = {name: label_weight * self._beyond_threshold(each) for name, each in label_losses.items()}
        pulls: dict[str, Tensor] = {}
        if self.weight and len(logits) > 1:
            mimicry, divergences = self._mimicry(logits, context)
            pulls = {name: factor * self.weight * each for name, each in mimicry.items()}
            observed |= divergences
        if self.measure_gradients_every and context.step % self.measure_gradients_every == 0:
            if _MAIN in logits:
                label_losses = {_MAIN: self._own_label_loss(logits[_MAIN], context), **label_losses}
            observed |= self._agreement("label", label_losses, context)
            if pulls:
                totals = {name: taught.get(name, label_losses[name]) + pulls[name] for name in label_losses}
                observed |= self._agreement("total", totals, context)
        return TermValue(torch.stack([*taught.values(), *pulls.values()]).sum(), observed)

    def _each(self) -> list[BranchHead]:
        return cast(list[BranchHead], list(self.heads.values()))

    def _logits(self, context: Context) -> dict[str, Tensor]:
        """Return the logits of all heads that there are, the network's own first."""
        logits = {} if context.predictions is None else {_MAIN: context.predictions}
        seed, stream = self.origin
        for head in self._each():
            shared = as_message(context.hooked[head.fork])
            # The stream that a learner of the branch alone would draw from.
            key = (seed, f"{stream}_{head.name}", "forward", context.epoch, context.step)
            with seeded(*key, device=shared.device):
                logits[head.name] = head(shared)
        return logits

    def _label_loss(self, logits: Tensor, context: Context) -> Tensor:
        return _LABEL_LOSSES[self.label_loss](logits, context.labels)

    def _own_label_loss(self, logits: Tensor, context: Context) -> Tensor:
        if self.own_smoothing:
            return cross_entropy_loss(logits, context.labels, self.own_smoothing)
        return self._label_loss(logits, context)

    def _beyond_threshold(self, loss: Tensor) -> Tensor:
        # The gradient of [loss]_+ is 0 where the loss is 0, which a loss without a threshold should not notice.
        return (loss - self.threshold).relu() if self.threshold else loss

    def _mimicry(self, logits: Mapping[str, Tensor], context: Context) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what each head should learn from the others, and the records of it."""
        names = (_MAIN, *self.heads)
        kept = kept_directions(self.directions, len(names), self.keep, *self.origin, context.epoch, context.step)
        present = torch.tensor([name in logits for name in names])
        kept = kept[present][:, present]
        messages = {name: as_message(each.detach()) for name, each in logits.items()}
        pulls, observed = {}, directions_record(kept, next(iter(logits.values())).device)
        for (student, own), row in zip(logits.items(), kept, strict=True):
            teachers = {name: on for name, on in zip(logits, row, strict=True) if name != student}
            others = torch.stack([messages[name] for name in teachers])
            pulls[student], each = branch_mimicry(own, others, torch.stack([*teachers.values()]), self.temperature)
            observed |= {f"branches/mimicry/{student}<-{name}": part for name, part in zip(teachers, each, strict=True)}
        return pulls, observed

    def _agreement(self, kind: str, losses: Mapping[str, Tensor], context: Context) -> dict[str, Tensor]:
        """Return the cosine of each two heads' gradients in the output of the lower one's fork."""
        forks = {head.name: head.fork for head in self._each()}
        sent: dict[str, dict[str, Tensor | None]] = {}
        for name, loss in losses.items():
            # The gradients of the sum over the batch: those of the mean would be rounded to nothing in half precision.
            total, shared = len(context.labels) * loss, [context.hooked[fork] for fork in self.hooks]
            gradients = torch.autograd.grad(total, shared, retain_graph=True, allow_unused=True)
            sent[name] = dict(zip(self.hooks, gradients, strict=True))
        found = {}
        for first, second in combinations(losses, 2):
            # Only the fork below both heads hears of both.
            for fork in dict.fromkeys(forks[name] for name in (second, first) if name in forks):
                ours, theirs = sent[first][fork], sent[second][fork]
                if ours is not None and theirs is not None:
                    found[f"branches/gradient_cosine/{kind}/{first}~{second}"] = _cosine(ours, theirs)
        return found


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of the angle between two gradients; 0 where one of them is 0."""
    tiny = torch.finfo(torch.float32).tiny
    return F.cosine_similarity(first.float().flatten(), second.float().flatten(), dim=0, eps=tiny)


def _accuracies(logits: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Return the share of the labelled images that each head gets right, and the mean of their probabilities."""
    labelled = (labels != NO_LABEL).sum().clamp(min=1)
    with torch.no_grad():
        ensemble = torch.stack([each.float().softmax(dim=1) for each in logits.values()]).mean(dim=0)
        return {
            f"branches/accuracy/{name}": (each.argmax(dim=1) == labels).sum() / labelled
            for name, each in {**logits, "ensemble": ensemble}.items()
        }

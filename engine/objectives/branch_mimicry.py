"""Mimicry between a classifier on a branch and the network's other classifiers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data import on_device
from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.recipes import Directions
from engine.streams import generator


def as_message(tensor: Tensor) -> Tensor:
    """Return a floating tensor of any shape as another learner would get it: in the dtype of autocast, if that is on.

    Features and logits that stay inside a learner are rounded like those that are sent, so that a branch computes the
    same numbers wherever it runs. The graph is kept.
    """
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def branch_mimicry(
    student_logits: Tensor, teacher_logits: Tensor, kept: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return sum_k T^2 KL(p_k || p_j) of head j and its m - 1 teachers k, as the mean over the batch, and each of them.

    Li & Chen 2020 (DHM) as released, with p = softmax(logits / T); not divided by the number of heads. Directions that
    are switched off stay in the value but have no gradient, and the others are not scaled up for them. Those that are
    kept share one target G = sum_k p_k, so the gradient is T / B sum_k (p_j - p_k).

    Args:
        student_logits: ``[B, classes]``, any floating dtype.
        teacher_logits: ``[m - 1, B, classes]``, any floating dtype; no gradient flows into it.
        kept: bool ``[m - 1]``, whether the student learns from each teacher; better on the CPU.
        temperature: T, above 0.

    Returns:
        float32 scalar in nats with its graph, and float32 ``[m - 1]`` without, the part of each teacher in it.
    """
    with full_precision(student_logits):
        student = F.log_softmax(student_logits.float() / temperature, dim=-1)
        teachers = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
        probabilities = teachers.exp()
        each = temperature**2 * (probabilities * (teachers - student.detach())).sum(dim=-1).mean(dim=-1)
        taught = on_device(kept, student.device)
        target = torch.where(taught[:, None, None], probabilities, 0.0).sum(dim=0)
        pull = -(temperature**2) * (target * student).sum(dim=-1).mean(dim=-1)
        return each.sum() + (pull - pull.detach()), each


def kept_directions(rule: Directions, heads: int, keep: float, seed: int, stream: str, epoch: int, step: int) -> Tensor:
    """Return which head learns from which in this step.

    Args:
        rule: ``all``: everyone from everyone. ``sampled``: the rule that the code released with Li & Chen 2020 holds
            commented out; of the P = m (m - 1) directions, r = floor(U P) are drawn with replacement, U uniform in
            [0, 1), and switched off. ``bernoulli``: each is kept with probability ``keep``, independently.
            ``top_down``: from deeper heads only. ``bottom_up``: from shallower heads only. ``to_main``: the first head
            alone learns.
        heads: m, at least 2, in order from the deepest: that of the network itself, then those of its branches.
        keep: for ``bernoulli``, 0 to 1.
        seed: with ``stream`` the origin of the random numbers, the same for all heads.
        stream: of the learner that holds the network's own head.
        epoch: from 0.
        step: of the epoch, from 0.

    Returns:
        bool ``[m, m]`` on the CPU, True at ``[j, k]`` if head j learns from head k; False on the diagonal.
    """
    assert heads > 1, f"{heads} heads have nobody to learn from"
    everyone = torch.ones(heads, heads, dtype=torch.bool)
    others = ~torch.eye(heads, dtype=torch.bool)
    if rule == "top_down":
        return everyone.tril(-1)
    if rule == "bottom_up":
        return everyone.triu(1)
    if rule == "to_main":
        return others & (torch.arange(heads) == 0)[:, None]
    if rule == "all":
        return others
    pairs = heads * (heads - 1)
    drawing = generator(seed, stream, "directions", epoch, step)
    if rule == "bernoulli":
        on = torch.rand(pairs, generator=drawing) < keep
    else:
        # Of P indices the first r count: shapes that depend on r would be compiled anew for each.
        number = (torch.rand((), generator=drawing) * pairs).floor()
        indices, places = torch.randint(pairs, (pairs,), generator=drawing), torch.arange(pairs)
        on = ~((indices[:, None] == places) & (places < number)[:, None]).any(dim=0)
    return others.masked_scatter(others, on)


def directions_record(kept: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Return the share of the directions that are kept, float scalar on this device, by the name of its record.

    Args:
        kept: bool ``[m, m]`` on the CPU, False on the diagonal.
        device: where the other records are.
    """
    heads = len(kept)
    share = kept.sum() / (heads * (heads - 1))
    return {"branches/directions_kept": on_device(share, device)}


class BranchMimicry(Term):
    """What one head of a network with branches learns from the others, which are heads of other learners.

    As the mimicry of ``Branches``, whose learner holds all heads, to the last bit; weigh it with alpha.

    Args:
        own: name of the learner's head, whose logits are ``Context.predictions``.
        heads: names of all, in order from the deepest; ``main`` first.
        messages: name of the message with the logits ``[B, classes]`` of each head; the own one is not read.
        origin: seed and stream of the learner with the head ``main``.
        temperature: T, above 0.
        directions: who learns from whom; see ``kept_directions``.
        keep: for ``bernoulli``.
    """

    name = "branch_mimicry"

    def __init__(
        self,
        own: str,
        heads: Sequence[str],
        messages: Mapping[str, str],
        *,
        origin: tuple[int, str],
        temperature: float = 1.0,
        directions: Directions = "all",
        keep: float = 1.0,
    ) -> None:
        super().__init__()
        assert own in heads, f"the head {own} is none of {heads}"
        assert set(heads) - {own} <= set(messages), f"messages of {set(messages)} are not those of the other {heads}"
        assert 0 < temperature < math.inf, f"temperature {temperature} is not above 0"
        self.own = own
        self.heads = tuple(heads)
        self.messages = dict(messages)
        self.origin = origin
        self.temperature = temperature
        self.directions: Directions = directions
        self.keep = keep

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss, and what each teacher adds to it."""
        student = context.predictions
        assert student is not None, "branch mimicry was called without the learner's predictions"
        kept = kept_directions(self.directions, len(self.heads), self.keep, *self.origin, context.epoch, context.step)
        row = kept[self.heads.index(self.own)]
        teachers = {name: on for name, on in zip(self.heads, row, strict=True) if name != self.own}
        logits = torch.stack([context.messages[self.messages[name]] for name in teachers])
        loss, each = branch_mimicry(student, logits, torch.stack([*teachers.values()]), self.temperature)
        observed = {f"branches/mimicry/{self.own}<-{name}": part for name, part in zip(teachers, each, strict=True)}
        return TermValue(loss, observed | directions_record(kept, student.device))

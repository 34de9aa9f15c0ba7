"""The losses of mutual learning: a learner's predictions against those of its peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.objectives.peers import PeerMessages, peer_messages
from engine.recipes import Divergence, MimicryReduction, MimicryTarget


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(p_teacher || p_student), where p = softmax(logits / T), as the mean over the batch.

    Zhang et al. 2018, equations 4 and 5. The sum runs over all classes; T^2 (Hinton et al. 2015) keeps the size of the
    gradient, T (p_student - p_teacher) / B per logit, from falling as T grows.

    Args:
        teacher_logits: ``[B, classes]``, any floating dtype; no gradient flows into it.
        student_logits: ``[B, classes]``, any floating dtype.
        temperature: T, above 0.

    Returns:
        float32 scalar in nats, 0 where the two agree.
    """
    return _mean_over_batch(_kl, teacher_logits, student_logits, temperature)


def reverse_kl(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(p_student || p_teacher): as ``kl_divergence``, but the student leaves out what it cannot match."""
    return _mean_over_batch(_reverse_kl, teacher_logits, student_logits, temperature)


def jeffreys(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return half the sum of ``kl_divergence`` and ``reverse_kl``.

    Zhang et al. 2018, equation 7, whose text calls it Jensen-Shannon; it is half the divergence of Jeffreys and has
    no upper bound.
    """
    return _mean_over_batch(_jeffreys, teacher_logits, student_logits, temperature)


def jensen_shannon(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 (KL(p_teacher || m) + KL(p_student || m)) / 2, where m = (p_teacher + p_student) / 2.

    Arguments as those of ``kl_divergence``. At most T^2 ln 2, and its gradient vanishes where the student gives a
    class no probability, so its weight is not comparable with that of ``kl_divergence``.
    """
    return _mean_over_batch(_jensen_shannon, teacher_logits, student_logits, temperature)


class Mimicry(Term):
    """Mean divergence of ``Context.predictions`` from the class logits ``[B, classes]`` that peers gave.

    Zhang et al. 2018, equation 8: 1/(K-1) sum_j KL(p_j || p_k) over the K-1 peers j of learner k. Peers whose message
    this step does not bring, or has diverged, are not counted; without any the loss is 0. No gradient flows to peers.

    Args:
        teachers: names of the peers' messages.
        divergence: from the target to the learner; see the function of that name.
        target: ``peers`` compares with each peer. ``mean_probabilities`` compares with the mean of their p_j
            (equation 9, DML_e), whose ``kl`` has the same gradient and a value that is lower by
            H(mean p_j) - mean H(p_j). ``mean_logits`` compares with softmax(mean z_j / T).
        reduction: ``mean`` over the peers, as printed in the paper, or ``sum``, as in its released code, which is
            K-1 times as strong. For the targets that are a mean of peers, ``sum`` multiplies by their number.
        temperature: T, above 0; the loss is scaled by T^2.
        axis: that of the classes in the predictions; at all others the divergences are averaged, as over the batch.

    Raises:
        RecipeError: when called, a peer tells other classes apart than the learner does.
    """

    name = "mimicry"

    def __init__(
        self,
        teachers: Sequence[str],
        *,
        divergence: Divergence = "kl",
        target: MimicryTarget = "peers",
        reduction: MimicryReduction = "mean",
        temperature: float = 1.0,
        axis: int = 1,
    ) -> None:
        super().__init__()
        assert len(set(teachers)) == len(teachers) > 0, f"teachers {teachers} are none, or not all different"
        assert 0 < temperature < math.inf, f"temperature {temperature} is not above 0"
        self.teachers = tuple(teachers)
        self.divergence = divergence
        self.target = target
        self.reduction = reduction
        self.temperature = temperature
        self.axis = axis

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss; 0 without graph if this step brings no message of a peer."""
        predictions = context.predictions
        assert predictions is not None, "the mimicry term was called without the learner's predictions"
        peers = peer_messages(context, self.teachers, predictions, self.name)
        if peers is None:
            return TermValue(predictions.new_zeros((), dtype=torch.float32))
        peers = replace(peers, values=_as_rows(peers.values, self.axis + 1, first=1))
        with full_precision(predictions):
            student = _log_probabilities(_as_rows(predictions, self.axis), self.temperature)
            per_image = _PER_IMAGE[self.divergence](self._targets(peers), student)
            losses = self.temperature**2 * per_image.mean(dim=-1)
            return TermValue(peers.total(losses) if self.reduction == "sum" else peers.mean(losses))

    def _targets(self, peers: PeerMessages) -> Tensor:
        """Return log-probabilities ``[peers, B, classes]``, or ``[1, B, classes]`` where the target is their mean."""
        if self.target == "mean_logits":
            mean = peers.values.sum(dim=0, keepdim=True) / peers.usable.sum().clamp(min=1)
            return _log_probabilities(mean, self.temperature)
        each = _log_probabilities(peers.values, self.temperature)
        if self.target == "peers":
            return each
        # The mean over nothing would be NaN: where nobody is usable, it is over all the zeros instead.
        counted = peers.usable | ~peers.usable.any()
        summed = each.masked_fill(~counted[:, None, None], -math.inf).logsumexp(dim=0, keepdim=True)
        return summed - counted.sum().log()


def _as_rows(logits: Tensor, axis: int, first: int = 0) -> Tensor:
    """Return logits ``[..., rows, classes]``: all axes from the first one on but that of the classes become one."""
    return logits if logits.dim() == first + 2 else logits.movedim(axis, -1).flatten(first, -2)


def _log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(logits.float() / temperature, dim=-1)


def _mean_over_batch(
    per_image: Callable[[Tensor, Tensor], Tensor], teacher_logits: Tensor, student_logits: Tensor, temperature: float
) -> Tensor:
    with full_precision(student_logits):
        teacher = _log_probabilities(teacher_logits.detach(), temperature)
        student = _log_probabilities(student_logits, temperature)
        return temperature**2 * per_image(teacher, student).mean(dim=-1)


# The four take log-probabilities [..., B, classes] of teachers and [B, classes] of the student and return [..., B].


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(dim=-1)


def _reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    return (student.exp() * (student - teacher)).sum(dim=-1)


def _jeffreys(teacher: Tensor, student: Tensor) -> Tensor:
    # Both sums in one: each class then adds something that is never negative, so nothing cancels.
    return 0.5 * ((teacher.exp() - student.exp()) * (teacher - student)).sum(dim=-1)


def _jensen_shannon(teacher: Tensor, student: Tensor) -> Tensor:
    middle = torch.logaddexp(teacher, student) - math.log(2.0)
    return 0.5 * (_kl(teacher, middle) + _kl(student, middle))


_PER_IMAGE: Mapping[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": _kl,
    "reverse_kl": _reverse_kl,
    "jeffreys": _jeffreys,
    "jensen_shannon": _jensen_shannon,
}

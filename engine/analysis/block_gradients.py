"""Gradients of losses in the weights of each block: those of segments and branches, and the end-to-end one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.learners import Learner
from engine.learners.hooks import OutputHooks, statistics_untracked
from engine.objectives import BranchHead, Classification, Context, Mimicry, cross_entropy_loss
from engine.streams import Key, seeded

Gradients = dict[str, Tensor]
"""Of the loss of one head, by the name of the block: of all its weights, one after another, float32 [weights]."""


def branch_heads(learner: Learner) -> list[BranchHead]:
    """Return the branches that leave a network inside a learner."""
    return [each for each in learner.objective.modules() if isinstance(each, BranchHead)]


def hooked_blocks(learner: Learner, learners: Mapping[str, Learner]) -> Sequence[str]:
    """Return the blocks whose outputs are asked for: by branches of a network of one learner, else by its losses."""
    return learner.objective.hooks if len(learners) > 1 else [head.fork for head in branch_heads(learner)]


def left_out(learners: Mapping[str, Learner]) -> dict[str, float]:
    """Return the weights of the terms whose gradients are not there, by words such as ``triplet of segment1``.

    That is what segments learn from peers, and of the last one all but the cross-entropy; of label smoothing the
    epsilon. Nothing of a network of one learner, whose branches are compared by their cross-entropy.
    """
    found: dict[str, float] = {}
    if len(learners) == 1:
        return found
    (*_, last) = learners
    for name, learner in learners.items():
        for term, weight in learner.objective.weights.items():
            loss = learner.objective.terms[term]
            if name == last and isinstance(loss, Classification):
                if loss.smoothing:
                    found[f"label smoothing of {name}"] = loss.smoothing
            elif name == last or isinstance(loss, Mimicry):
                found[f"{term} of {name}"] = weight
    return found


def _passed(name: str, learner: Learner, inputs: Tensor, draws: Sequence[Key]) -> Tensor:
    """Return what a learner's body gives, which drops the same of equal inputs whenever it is called."""
    with seeded(*draws, name, device=inputs.device):
        features: Tensor = learner.body(inputs)
    return features


def compared_gradients(
    learners: Mapping[str, Learner],
    hooks: Mapping[str, OutputHooks],
    inputs: Tensor,
    context: Context,
    draws: Sequence[Key],
) -> list[tuple[str, str, Tensor, Tensor]]:
    """Return head, block, local gradient and end-to-end gradient of each head and block.

    Args:
        learners: of one network, in order; their bodies are put in training mode.
        hooks: theirs, on `hooked_blocks`.
        inputs: of the network, [B, C, H, W].
        context: labels, pixels, epoch and step of the batch.
        draws: stream of what the bodies draw: both gradients are of the same dropout.
    """
    bodies = [each.body.train() for each in learners.values()]
    (*_, last) = learners
    with statistics_untracked(*bodies):
        if len(learners) == 1:
            locals_ = _of_branches(learners[last], hooks[last], inputs, context.labels)
            whole = locals_.pop("")
        else:
            locals_ = _of_segments(learners, hooks, inputs, context, draws)
            features = inputs
            for name, learner in learners.items():
                features = _passed(name, learner, features, draws)
            logits = learners[last].objective.predict(features)
            assert logits is not None, "a network that is analysed predicts a class"
            blocks = {name: block for body in bodies for name, block in body.named_children()}
            whole = by_block(cross_entropy_loss(logits, context.labels), blocks)
    return [
        (head, block, gradient, whole[block])
        for head, gradients in locals_.items()
        for block, gradient in gradients.items()
    ]


def _of_segments(
    learners: Mapping[str, Learner],
    hooks: Mapping[str, OutputHooks],
    inputs: Tensor,
    context: Context,
    draws: Sequence[Key],
) -> dict[str, Gradients]:
    """Return the gradients of each segment's own loss; of the last, of the network's cross-entropy."""
    found = {}
    (*_, last) = learners
    for name, learner in learners.items():
        with hooks[name].recording() as hooked:
            features = _passed(name, learner, inputs, draws)
        if name == last:
            logits = learner.objective.predict(features)
            assert logits is not None
            loss = cross_entropy_loss(logits, context.labels)
        else:
            heard = Context(context.labels, context.pixels, hooked=hooked, epoch=context.epoch, step=context.step)
            loss = learner.objective.train()(features, heard).total
        found[name] = by_block(loss, dict(learner.body.named_children()))
        inputs = features.detach()
    return found


def _of_branches(learner: Learner, hooks: OutputHooks, inputs: Tensor, labels: Tensor) -> dict[str, Gradients]:
    """Return the gradients of the cross-entropy of each branch, and of the network itself under an empty name."""
    heads = branch_heads(learner)
    learner.objective.train()
    with hooks.recording() as hooked, statistics_untracked(learner.objective):
        predicted = {"": learner.objective.predict(learner.body(inputs))}
        predicted |= {head.name: head(hooked[head.fork]) for head in heads}
    blocks = dict(learner.body.named_children())
    found = {}
    for name, logits in predicted.items():
        assert logits is not None
        found[name] = by_block(cross_entropy_loss(logits, labels), blocks)
    return found


def by_block(loss: Tensor, blocks: Mapping[str, nn.Module]) -> Gradients:
    """Return the gradients of a loss in the weights of each block that it depends on, but those that are frozen."""
    weights = {name: [each for each in block.parameters() if each.requires_grad] for name, block in blocks.items()}
    every = [weight for each in weights.values() for weight in each]
    if not every:
        return {}
    flat = iter(torch.autograd.grad(loss, every, retain_graph=True, allow_unused=True))
    found = {}
    for name, each in weights.items():
        pieces = [gradient for gradient in (next(flat) for _ in each) if gradient is not None]
        if pieces:
            found[name] = torch.cat([piece.flatten() for piece in pieces])
    return found


def agreement(local: Tensor, whole: Tensor) -> tuple[float, float]:
    """Return the cosine of two gradients, and the ratio of their lengths; not numbers where the second is zero."""
    first, second = local.double(), whole.double()
    lengths = float(first.norm()), float(second.norm())
    if 0.0 in lengths:
        return float("nan"), lengths[0] / lengths[1] if lengths[1] else float("nan")
    return float(first @ second) / (lengths[0] * lengths[1]), lengths[0] / lengths[1]

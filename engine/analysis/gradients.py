"""Local gradients beside the end-to-end one: at the same weights, on the same batches, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.depth import Curve, draw_by_depth
from engine.analysis.opened import OpenedRun
from engine.learners import Learner
from engine.learners.hooks import OutputHooks, statistics_untracked
from engine.objectives import BranchHead, Context, cross_entropy_loss
from engine.streams import seeded
from engine.tracking.figures import FAINT, open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Gradients = dict[str, Tensor]
"""Of the loss of one head, by the name of the block: of all its weights, one after another, float32 [weights]."""

_BETWEEN = "|"
_FEWEST_IMAGES = 2


class GradientAgreement(Analysis):
    """Cosine of each block's local gradient and the end-to-end one, by depth; of each branch's where there are some.

    The gradients are those of training: batch norms use the statistics of the batch, losses have their weights. Images
    are not augmented. The end-to-end gradient is that of the network's cross-entropy, so the last segment agrees fully.
    Of a network with branches it is compared with the gradient of each branch's cross-entropy, in the blocks that both
    share.
    """

    name = "gradients"
    title = "Agreement of local gradients with the end-to-end gradient"
    reading = "Mean and standard deviation over batches; the last segment has no other loss than the network"
    columns = {
        "head": "segment or branch whose loss gives the local gradient",
        "block": "in which gradients are compared",
        "depth": "of the block, counted from 0",
        "cosine": "of the local and the end-to-end gradient of all weights of the block, mean over batches",
        "cosine_deviation": "its standard deviation over batches; not a number of one batch",
        "norm_ratio": "length of the local gradient over that of the end-to-end one, mean over batches",
        "batches": "of the recipe's data.batch_size",
    }

    def refusal(self, opened: OpenedRun) -> str | None:
        """Refuse networks that learn end to end from one loss, and a single image, too."""
        reason = super().refusal(opened)
        if reason is not None:
            return reason
        for name in opened.networks:
            if len(opened.deployed(name).learners) == 1 and not _branches(next(iter(opened.learners(name).values()))):
                return f"{name} has neither segments nor branches in its learner, so its only gradient is end to end"
        if len(opened.places) < _FEWEST_IMAGES:
            # A head's batch norm may have one value per channel for each image.
            return f"one image has no statistics of a batch, which gradients of training need; give {_more(opened)}"
        return None

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return for each head and block ``[batches, 2]``, float64: cosine and ratio of the lengths."""
        learners = opened.learners(network)
        hooks = {name: OutputHooks(each.body, _hooked_blocks(each, learners)) for name, each in learners.items()}
        epoch = self._epoch(opened)
        found: dict[str, list[tuple[float, float]]] = {}
        depth = {name: place for place, name in enumerate(opened.run.network(network)._modules)}
        for number, rows in enumerate(_batches(opened)):
            with seeded(opened.settings.seed, "analysis", "gradients", number, device=opened.device):
                context = Context(opened.images.labels(rows), opened.images.pixels(rows), epoch=epoch, step=number)
                compared = _compared(learners, hooks, opened.images.inputs(rows), context)
            for head, block, local, whole in compared:
                key = f"{depth[block]:04}{_BETWEEN}{head}{_BETWEEN}{block}"
                found.setdefault(key, []).append(_agreement(local, whole))
        return {key: np.array(values) for key, values in found.items()}

    @staticmethod
    def _epoch(opened: OpenedRun) -> int:
        """Return the epoch of the last step: schedules of losses ask for it."""
        return max(0, opened.run.checkpoint.step - 1) // opened.source.steps_per_epoch()

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each block and head, by depth."""
        rows = []
        for each in found:
            for key, values in sorted(each.arrays.items()):
                depth, head, block = key.split(_BETWEEN)
                cosines, ratios = values.T
                rows.append(
                    {
                        **owner(each),
                        "head": head,
                        "block": block,
                        "depth": int(depth),
                        "cosine": float(cosines.mean()),
                        "cosine_deviation": float(cosines.std(ddof=1)) if len(values) > 1 else float("nan"),
                        "norm_ratio": float(ratios.mean()),
                        "batches": len(values),
                    }
                )
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw the cosine over depth: a curve for each network, or for each branch."""
        curves: dict[str, Curve] = {}
        for each in found:
            rows = self.rows([each])
            heads = {row["head"] for row in rows}
            # Each block of a cut network has one local gradient, of a network with branches one of each behind it.
            cut = len(rows) == len({row["block"] for row in rows})
            for head in [""] if cut else sorted(map(str, heads)):
                chosen = [row for row in rows if cut or row["head"] == head]
                curves[f"{each.label} {head}".rstrip()] = Curve.of(chosen, "cosine", "cosine_deviation")
        figure = open_figure(8.5, 4.6, title)
        axes = figure.subplots()
        axes.axhline(0.0, color=FAINT, linewidth=1.0)
        draw_by_depth(axes, curves, "cosine with the end-to-end gradient (-1 to 1)")
        axes.set_ylim(top=1.05)
        return figure


def _more(opened: OpenedRun) -> str:
    """Return in words what brings more than one image."""
    if opened.settings.positions is not None:
        return "two --positions or more"
    return "a --split with more" if opened.settings.images >= _FEWEST_IMAGES else f"--images {_FEWEST_IMAGES} or more"


def _batches(opened: OpenedRun) -> list[slice]:
    """Return full batches of the recipe's size; all images where they are fewer than one."""
    size, count = opened.run.recipe.data.batch_size, len(opened.images.places)
    full = [slice(start, start + size) for start in range(0, count - size + 1, size)]
    return full or [slice(0, count)]


def _branches(learner: Learner) -> list[BranchHead]:
    return [each for each in learner.objective.modules() if isinstance(each, BranchHead)]


def _hooked_blocks(learner: Learner, learners: Mapping[str, Learner]) -> Sequence[str]:
    """Return the blocks whose outputs are asked for: by branches of a network of one learner, else by its losses."""
    return learner.objective.hooks if len(learners) > 1 else [head.fork for head in _branches(learner)]


def _compared(
    learners: Mapping[str, Learner], hooks: Mapping[str, OutputHooks], inputs: Tensor, context: Context
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """Yield head, block, local gradient and end-to-end gradient."""
    bodies = [each.body.train() for each in learners.values()]
    (*_, last) = learners
    with statistics_untracked(*bodies):
        if len(learners) == 1:
            locals_ = _of_branches(learners[last], hooks[last], inputs, context.labels)
            whole = locals_.pop("")
        else:
            locals_ = _of_segments(learners, hooks, inputs, context)
            logits = learners[last].objective.predict(nn.Sequential(*bodies)(inputs))
            assert logits is not None, "a network that is analysed predicts a class"
            blocks = {name: block for body in bodies for name, block in body.named_children()}
            whole = _by_block(cross_entropy_loss(logits, context.labels), blocks)
    for head, gradients in locals_.items():
        for block, gradient in gradients.items():
            yield head, block, gradient, whole[block]


def _of_segments(
    learners: Mapping[str, Learner], hooks: Mapping[str, OutputHooks], inputs: Tensor, context: Context
) -> dict[str, Gradients]:
    """Return the gradients of each segment's own loss; of the last, of the network's cross-entropy."""
    found = {}
    (*_, last) = learners
    for name, learner in learners.items():
        with hooks[name].recording() as hooked:
            features = learner.body(inputs)
        if name == last:
            logits = learner.objective.predict(features)
            assert logits is not None
            loss = cross_entropy_loss(logits, context.labels)
        else:
            heard = Context(context.labels, context.pixels, hooked=hooked, epoch=context.epoch, step=context.step)
            loss = learner.objective.train()(features, heard).total
        found[name] = _by_block(loss, dict(learner.body.named_children()))
        inputs = features.detach()
    return found


def _of_branches(learner: Learner, hooks: OutputHooks, inputs: Tensor, labels: Tensor) -> dict[str, Gradients]:
    """Return the gradients of the cross-entropy of each branch, and of the network itself under an empty name."""
    heads = _branches(learner)
    learner.objective.train()
    with hooks.recording() as hooked, statistics_untracked(learner.objective):
        predicted = {"": learner.objective.predict(learner.body(inputs))}
        predicted |= {head.name: head(hooked[head.fork]) for head in heads}
    blocks = dict(learner.body.named_children())
    found = {}
    for name, logits in predicted.items():
        assert logits is not None
        found[name] = _by_block(cross_entropy_loss(logits, labels), blocks)
    return found


def _by_block(loss: Tensor, blocks: Mapping[str, nn.Module]) -> Gradients:
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


def _agreement(local: Tensor, whole: Tensor) -> tuple[float, float]:
    """Return the cosine of two gradients, and the ratio of their lengths; not numbers where the second is zero."""
    first, second = local.double(), whole.double()
    lengths = float(first.norm()), float(second.norm())
    if 0.0 in lengths:
        return float("nan"), lengths[0] / lengths[1] if lengths[1] else float("nan")
    return float(first @ second) / (lengths[0] * lengths[1]), lengths[0] / lengths[1]

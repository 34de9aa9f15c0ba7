"""Local gradients beside the end-to-end one: at the same weights, on the same batches, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.block_gradients import agreement, branch_heads, compared_gradients, hooked_blocks, left_out
from engine.analysis.depth import Curve, draw_by_depth
from engine.analysis.opened import OpenedRun
from engine.learners.hooks import OutputHooks
from engine.objectives import Context
from engine.streams import generator, seeded
from engine.tracking.figures import FAINT, open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BETWEEN, _LEFT_OUT = "|", "left out|"
_FEWEST_IMAGES = 2


class GradientAgreement(Analysis):
    """Cosine of each block's local gradient and the end-to-end one, by depth; of each branch's where there are some.

    The gradients are those of training: batch norms use the statistics of the batch, losses have their weights. Images
    are not augmented; batches are drawn from them, as a split may hold one class after another. The end-to-end gradient
    is that of the network's cross-entropy, the only loss that is counted of the last segment, so that one agrees fully.
    What peers tell one another is not there: the caption names the terms that are left out.
    Of a network with branches it is compared with the gradient of each branch's cross-entropy, in the blocks that both
    share.
    """

    name = "gradients"
    title = "Agreement of local gradients with the end-to-end gradient"
    version = 2
    reading = "Mean and standard deviation over batches; only its cross-entropy is counted of the last segment"
    columns = {
        "head": "segment or branch whose loss gives the local gradient",
        "block": "in which gradients are compared",
        "depth": "of the block, counted from 0",
        "cosine": "of the local and the end-to-end gradient of all weights of the block, mean over batches",
        "cosine_deviation": "its standard deviation over batches; not a number of one batch",
        "norm_ratio": "length of the local gradient over that of the end-to-end one, mean over batches",
        "batches": "of the recipe's data.batch_size, drawn from the images",
        "images": "in these batches; those that fill no batch are left out",
    }

    def refusal(self, opened: OpenedRun) -> str | None:
        """Refuse networks that learn end to end from one loss, and a single image, too."""
        reason = super().refusal(opened)
        if reason is not None:
            return reason
        for name in opened.networks:
            cut = len(opened.deployed(name).learners) > 1
            if not cut and not branch_heads(next(iter(opened.learners(name).values()))):
                return f"{name} has neither segments nor branches in its learner, so its only gradient is end to end"
        if len(opened.places) < _FEWEST_IMAGES:
            # A head's batch norm may have one value per channel for each image.
            return f"one image has no statistics of a batch, which gradients of training need; give {_more(opened)}"
        return None

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return for each head and block ``[batches, 3]``, float64: cosine, ratio of the lengths, number of images.

        And for each term that is left out, float64 []: its weight, or the epsilon of label smoothing.
        """
        learners = opened.learners(network)
        hooks = {name: OutputHooks(each.body, hooked_blocks(each, learners)) for name, each in learners.items()}
        epoch = self._epoch(opened)
        found: dict[str, list[tuple[float, float, int]]] = {}
        depth = {name: place for place, name in enumerate(opened.run.network(network)._modules)}
        for number, rows in enumerate(_batches(opened)):
            context = Context(opened.images.labels(rows), opened.images.pixels(rows), epoch=epoch, step=number)
            draws = (opened.settings.seed, "analysis", "gradients", number)
            with seeded(*draws, device=opened.device):
                compared = compared_gradients(learners, hooks, opened.images.inputs(rows), context, draws)
            for head, block, local, whole in compared:
                key = f"{depth[block]:04}{_BETWEEN}{head}{_BETWEEN}{block}"
                found.setdefault(key, []).append((*agreement(local, whole), len(rows)))
        arrays = {key: np.array(values) for key, values in found.items()}
        return arrays | {f"{_LEFT_OUT}{key}": np.array(weight) for key, weight in left_out(learners).items()}

    @staticmethod
    def _epoch(opened: OpenedRun) -> int:
        """Return the epoch of the last step: schedules of losses ask for it."""
        return max(0, opened.run.checkpoint.step - 1) // opened.source.steps_per_epoch()

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each block and head, by depth."""
        rows = []
        for each in found:
            for key, values in sorted(each.arrays.items()):
                if key.startswith(_LEFT_OUT):
                    continue
                depth, head, block = key.split(_BETWEEN)
                cosines, ratios, images = values.T
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
                        "images": int(images.sum()),
                    }
                )
        return rows

    def remark(self, found: Sequence[Measured]) -> str:
        """Return which terms of which learners are left out."""
        several = len({each.run for each in found}) > 1
        terms = [
            key.removeprefix(_LEFT_OUT) + (f" ({each.run})" if several else "")
            for each in found
            for key in sorted(each.arrays)
            if key.startswith(_LEFT_OUT)
        ]
        return f"left out: {', '.join(terms)}" if terms else ""

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


def _batches(opened: OpenedRun) -> list[np.ndarray]:
    """Return which images are in each full batch of the recipe's size; all of them where they are fewer than one."""
    size, count = opened.run.recipe.data.batch_size, len(opened.images.places)
    order = torch.randperm(count, generator=generator(opened.settings.seed, "analysis", "gradients")).numpy()
    return [order[start : start + size] for start in range(0, count - size + 1, size)] or [order]

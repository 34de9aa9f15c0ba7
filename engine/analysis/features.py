"""Features of blocks and segments: what is compared of them, and what a local head makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.analysis.images import ImageSet
from engine.analysis.opened import OpenedRun
from engine.backbones import ChannelsLast, FeatureLayout, Maps, Tokens
from engine.learners import Learner


def pooled(features: Tensor, layout: FeatureLayout) -> Tensor:
    """Return features as vectors [B, channels]: the mean over their positions.

    Args:
        features: [B, ...].
        layout: theirs; features of a layout without positions are flattened, and tokens that stand for no position are
            left out, unless there are no others.
    """
    if isinstance(layout, Tokens):
        return features[:, layout.prefix_tokens if layout.positions else 0 :].mean(dim=1)
    if isinstance(layout, ChannelsLast):
        return features.mean(dim=(1, 2))
    return features.mean(dim=(2, 3)) if isinstance(layout, Maps) else features.flatten(1)


def blocks_to(opened: OpenedRun, network: str, block: str) -> tuple[nn.Sequential, FeatureLayout]:
    """Return the blocks of a network up to one and with it, on the device, and the layout of what that one gives."""
    blocks = opened.network(network)
    stop = list(blocks._modules).index(block) + 1
    return blocks[:stop], opened.shapes(network)[stop - 1]


@torch.no_grad()
def features_behind(
    opened: OpenedRun, network: str, block: str, images: ImageSet, kept: Callable[[Tensor, FeatureLayout], Tensor]
) -> Tensor:
    """Return the features behind a block of a network, float32 [N, ...], on the device.

    Args:
        opened: the run.
        network: of the run.
        block: of the network.
        images: N of them.
        kept: gives what is kept of the features [B, ...] of a batch, such as `pooled`.
    """
    (blocks, layout), found = blocks_to(opened, network, block), None
    for rows in images.slices():
        values = kept(blocks(images.inputs(rows)), layout)
        if found is None:
            # Filled, as concatenated batches would take twice the memory.
            found = values.new_empty(len(images.places), *values.shape[1:])
        found[rows] = values
    assert found is not None, "a set of images is never empty"
    return found


def segments_before(opened: OpenedRun, network: str) -> tuple[str, ...]:
    """Return the learners of a network's segments but the last, in order: those whose heads are not the network's."""
    return opened.deployed(network).learners[:-1]


def up_to(opened: OpenedRun, network: str, learner: str) -> tuple[list[Learner], Learner]:
    """Return the learners before one of a network's, and that one, each in evaluation mode."""
    learners = opened.learners(network)
    names = list(learners)
    return [learners[name] for name in names[: names.index(learner)]], learners[learner]


@torch.no_grad()
def local_outputs(opened: OpenedRun, network: str, learner: str) -> tuple[Tensor | None, Tensor]:
    """Return what the local head of a segment predicts, and the segment's pooled features, on the CPU.

    Returns:
        logits [N, classes], None where the segment's loss predicts no class, and features [N, channels]; float32.
    """
    before, last = up_to(opened, network, learner)
    layout = opened.shape_behind(network, learner)
    logits, features = [], []
    for rows in opened.images.slices():
        values = opened.images.inputs(rows)
        for each in (*before, last):
            values = each.body(values)
        predicted = last.objective.predict(values)
        if predicted is not None:
            logits.append(predicted.cpu())
        features.append(pooled(values, layout).cpu())
    return torch.cat(logits) if logits else None, torch.cat(features)

"""The knowledge store: a running mean of a network's predictions, per training image and group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engine.errors import RecipeError
from engine.knowledge.changes import BLOCK, ROWS, check_changes
from engine.knowledge.memory import Layout, allocate
from engine.knowledge.top_classes import densify, truncate

Content = Literal["probabilities", "logits"]

_LOWEST = torch.finfo(torch.float16).min


class KnowledgeStore:
    """The group knowledge K of Tang et al. (GKT, AAAI 2024, and Mixed Knowledge Fraction): K = a p + (1 - a) K.

    The first prediction p of an image in a group is K itself; which images have one is kept apart from the values.
    Values lie in float16 and every calculation is in float32, on the CPU, with a result that does not depend on the
    number of threads. Of ``logits`` (Deng and Zhang 2021 store them) each prediction is shifted so that its largest is
    0, which softmax does not notice and which puts the large ones where float16 is finest; below -65504 they are cut
    off.

    Args:
        images: training images, known by their index in the data set.
        classes: of the predictions.
        groups: separate means per image.
        averaging_weight: a, above 0 and at most 1; 1 keeps the last prediction. Far below 0.001 a step is smaller than
            float16's spacing, and the mean stands still.
        content: what predictions are.
        top_k: store only so many of the largest probabilities of an image, and what is left as spread evenly over the
            other classes; all of them if None.
        folder: whose disk holds the values; memory does if None.

    Raises:
        RecipeError: ``top_k`` is not below ``classes`` or is meant for logits; the folder cannot be used.
    """

    def __init__(
        self,
        images: int,
        classes: int,
        groups: int,
        averaging_weight: float,
        *,
        content: Content = "probabilities",
        top_k: int | None = None,
        folder: Path | None = None,
    ) -> None:
        assert images > 0 and classes > 0 and groups > 0, f"{images} images, {classes} classes, {groups} groups"
        assert 0 < averaging_weight <= 1, f"averaging weight {averaging_weight} is not in (0, 1]"
        if top_k is not None and content == "logits":
            raise RecipeError(f"method.top_k={top_k}: a part can be kept of probabilities only; leave it out")
        if top_k is not None and not 0 < top_k < classes:
            raise RecipeError(
                f"method.top_k={top_k}: expected 1 to {classes - 1}, as there are {classes} classes; leave it out to "
                "keep all"
            )
        self.images, self.classes, self.groups = images, classes, groups
        self.averaging_weight = averaging_weight
        self.content = content
        self._top_k = top_k
        layout: Layout = {"values": ((groups * images, top_k or classes), np.dtype(np.float16))}
        if top_k is not None:
            width = np.int16 if classes <= np.iinfo(np.int16).max + 1 else np.int32
            layout = {"classes": ((groups * images, top_k), np.dtype(width)), **layout}
        self._arrays = allocate(layout, folder)
        self._known = np.zeros(groups * images, np.bool_)
        self._changed = np.zeros(groups * images, np.bool_)
        self._lost_mass, self._truncated = 0.0, 0

    @property
    def known(self) -> int:
        """How many rows, of images times groups, have been remembered."""
        return int(np.count_nonzero(self._known))

    @property
    def bytes(self) -> int:
        """Bytes of values and marks when every row is known."""
        return sum(array.nbytes for array in (*self._arrays.values(), self._known, self._changed))

    def recall(self, group: int, indices: np.ndarray) -> Tensor:
        """Return what is known of images.

        Args:
            group: from 0 to ``groups - 1``.
            indices: integers ``[B]``, of images; they may repeat.

        Returns:
            float32 ``[B, classes]`` on the CPU, with rows of NaN where nothing is known. Probabilities are non-negative
            and sum to 1 to float32's precision: what float16 rounds away is made good for in each row.
        """
        rows = self._rows(group, indices)
        values, known = self._read(rows), self._known[rows]
        if not known.all():
            values[torch.from_numpy(~known)] = torch.nan
        return values

    def remember(self, group: int, indices: np.ndarray, values: Tensor, weights: Tensor | None = None) -> None:
        """Take predictions into the running means of their images.

        Predictions of one image are first averaged with their weights, in the order of the batch; only their mean
        counts as a new prediction. New running means of probabilities are clipped at 0 and normalised before they are
        stored, not the predictions: what goes below 0 may still weigh against what was known. A row with NaN or
        infinity or of weight 0 is left out, and so is a mean with nothing above 0.

        Args:
            group: from 0 to ``groups - 1``.
            indices: integers ``[B]``, of images; they may repeat.
            values: ``[B, classes]``, any floating dtype and device; no gradient flows into them.
            weights: ``[B]``, non-negative; equal ones if None. They matter only among rows of one image.
        """
        rows = self._rows(group, indices)
        assert values.shape == (len(rows), self.classes), f"values {list(values.shape)} of {len(rows)} images"
        fresh = values.detach().to("cpu", torch.float32)
        usable = fresh.sum(dim=1).isfinite().numpy()
        # In memory of their own: what is averaged below is not the caller's.
        fresh = self._shifted(fresh) if self.content == "logits" else fresh.clone()
        share = np.ones(len(rows)) if weights is None else weights.detach().to("cpu", torch.float64).numpy()
        assert bool((share >= 0).all()) and np.isfinite(share).all(), "weights are negative or not finite"
        usable = usable & (share > 0)
        if not usable.all():
            rows, share, fresh = rows[usable], share[usable], fresh[torch.from_numpy(usable)]
        rows, fresh = _mean_by_row(rows, fresh, share)
        (seen,) = np.nonzero(self._known[rows])
        if len(seen):
            weight, old = self.averaging_weight, self._read(rows[seen])
            # Products and sum apart: a fused operation would round differently in some of the threads' shares.
            fresh[torch.from_numpy(seen)] = fresh[torch.from_numpy(seen)] * weight + old * (1 - weight)
        if self.content == "probabilities":
            sums = fresh.clamp_(min=0).sum(dim=1, keepdim=True)
            whole = (sums[:, 0] > 0) & sums[:, 0].isfinite()
            if not whole.all():
                rows, fresh, sums = rows[whole.numpy()], fresh[whole], sums[whole]
            fresh.div_(sums)
        self._write(rows, fresh)

    def publish(self, source: int, target: int) -> None:
        """Copy what one group knows over what another one knows of the same images; the others stay as they are."""
        assert source != target, "a group is published over itself"
        for start in range(0, self.images, BLOCK):
            block = np.arange(start, min(start + BLOCK, self.images))
            block = block[self._known[self._rows(source, block)]]
            taken, given = self._rows(source, block), self._rows(target, block)
            for array in self._arrays.values():
                array[given] = array[taken]
            self._mark(given)

    def take_lost_mass(self) -> float | None:
        """Return the mean probability per remembered row that ``top_k`` moved to other classes since the last call.

        In [0, 1); None if nothing was cut short since then.
        """
        mean = self._lost_mass / self._truncated if self._truncated else None
        self._lost_mass, self._truncated = 0.0, 0
        return mean

    def changes(self) -> dict[str, Tensor]:
        """Return a copy of the rows that changed since the last call, or since they were loaded.

        Returns:
            ``rows``: int64 ``[n]``, ascending, each ``group * images + index``; ``values``: float16 ``[n, classes]``.
            With ``top_k``, ``values`` is float16 ``[n, k]`` and ``classes``, int16 or int32 ``[n, k]``, says whose.
        """
        rows = np.flatnonzero(self._changed)
        self._changed[rows] = False
        return self._stored(rows)

    def load(self, changes: Mapping[str, Tensor]) -> None:
        """Put rows back that ``changes`` or ``merge_changes`` gave. They do not count as changed; others stay.

        Raises:
            RunError: they are not rows of a store of this size and content; nothing has been put back then.
        """
        nothing = self._stored(np.zeros(0, np.int64))
        check_changes(
            changes, nothing, self.groups * self.images, self.classes, probabilities=self.content == "probabilities"
        )
        rows = changes[ROWS].numpy()
        for name, array in self._arrays.items():
            array[rows] = changes[name].numpy()
        self._known[rows] = True
        self._changed[rows] = False

    def _rows(self, group: int, indices: np.ndarray) -> np.ndarray:
        assert 0 <= group < self.groups, f"group {group} of {self.groups}"
        assert not len(indices) or (indices.min() >= 0 and indices.max() < self.images), "an index is of no image"
        return indices.astype(np.int64) + group * self.images

    def _stored(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {ROWS: torch.from_numpy(rows)} | {
            name: torch.from_numpy(array[rows]) for name, array in self._arrays.items()
        }

    def _mark(self, rows: np.ndarray) -> None:
        self._known[rows] = True
        self._changed[rows] = True

    def _shifted(self, logits: Tensor) -> Tensor:
        """Return logits as they are stored."""
        # No row beyond float16: infinity would stay in the running mean for ever.
        return (logits - logits.amax(dim=1, keepdim=True)).clamp_(min=_LOWEST)

    def _read(self, rows: np.ndarray) -> Tensor:
        """Return float32 [B, classes]; of rows that are not known, anything."""
        values = torch.from_numpy(self._arrays["values"][rows]).float()
        if self._top_k is not None:
            classes = torch.from_numpy(self._arrays["classes"][rows]).long()
            values = densify(classes, values, self.classes)
        if self.content == "probabilities":
            values.div_(values.sum(dim=1, keepdim=True))
        return values

    def _write(self, rows: np.ndarray, values: Tensor) -> None:
        if self._top_k is not None:
            classes, values, moved = truncate(values, self._top_k)
            self._arrays["classes"][rows] = classes.numpy()
            self._lost_mass += float(moved.sum(dtype=torch.float64))
            self._truncated += len(rows)
        self._arrays["values"][rows] = values.half().numpy()
        self._mark(rows)


def _mean_by_row(rows: np.ndarray, values: Tensor, weights: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """Return each row once and the weighted mean of its values, added up in the order of the batch."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    first = np.ones(len(rows), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    if first.all():
        return rows, values
    starts = np.flatnonzero(first)
    counts = np.diff(starts, append=len(rows))
    total = np.bincount(np.cumsum(first) - 1, weights[order])
    shares = torch.from_numpy((weights[order] / np.repeat(total, counts)).astype(np.float32))[:, None]
    mean = values[torch.from_numpy(order[starts])] * shares[torch.from_numpy(starts)]
    for turn in range(1, counts.max()):
        (repeated,) = np.nonzero(counts > turn)
        source = starts[repeated] + turn
        mean[torch.from_numpy(repeated)] += values[torch.from_numpy(order[source])] * shares[torch.from_numpy(source)]
    return ordered[starts], mean

"""Similarity matching: the features of a batch resemble each other as the labels do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones import Maps, require_layout
from engine.objectives.objective import Context, Term, TermValue, full_precision

_LEAST_NORM = 1e-8


def similarity_matrix(features: Tensor) -> Tensor:
    """Return the adjusted cosine similarity of every pair of images, S(h) of Nokland & Eidnes 2019.

    A feature map of more than 3 channels and more than 1 row is first reduced to the standard deviation of each
    channel over positions; other features are flattened. Each row is centred and divided by its norm.

    Args:
        features: ``[B, C, H, W]`` or ``[B, D]``, any floating dtype.

    Returns:
        float32 ``[B, B]`` in [-1, 1].
    """
    with full_precision(features):
        features = features.float()
        if features.dim() == 4 and features.shape[1] > 3 and features.shape[2] > 1:
            rows = features.flatten(2).std(dim=2)
        else:
            rows = features.flatten(1)
        centred = rows - rows.mean(dim=1, keepdim=True)
        # vector_norm has gradient 0 at 0, where the square root of a sum of squares has none.
        normalised = centred / (torch.linalg.vector_norm(centred, dim=1, keepdim=True) + _LEAST_NORM)
        return (normalised @ normalised.T).clamp(-1.0, 1.0)


def label_similarity(labels: Tensor, num_classes: int) -> Tensor:
    """Return ``similarity_matrix`` of the one-hot labels in closed form, float32 ``[B, B]``.

    A centred one-hot row has squared norm 1 - 1/n, and two of different classes have product -1/n, so their
    similarity is -1/(n - 1).

    Args:
        labels: int64 ``[B]``.
        num_classes: n, at least 2.
    """
    same = labels[:, None] == labels[None, :]
    return torch.where(same, 1.0, -1.0 / (num_classes - 1))


class SimilarityMatching(Term):
    """Mean squared difference between S(conv3x3(h)) and S(one-hot labels): the second loss of PredSim.

    Nokland & Eidnes 2019: PredSim weighs it with beta = 0.99 and the prediction loss, which is cross-entropy of
    ``prediction_head``, with 1 - beta. The convolution starts as torch starts it, as in the authors' code.

    Raises:
        RecipeError: the features are not a feature map ``[C, H, W]``.
    """

    name = "similarity"

    def __init__(self, feature_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels = require_layout(feature_shape, "similarity matching", Maps).channels
        self.num_classes = num_classes
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss of features ``[B, C, H, W]``."""
        target = label_similarity(context.labels, self.num_classes)
        similarity = similarity_matrix(self.convolution(features))
        with full_precision(features):
            return TermValue(F.mse_loss(similarity, target))

"""A network of one's own: maps with channels last, tokens behind a class token, frozen and unused weights."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

WIDTH = 5


class ChannelsLast(nn.Module):
    """Images [B, C, 8, 8] to maps [B, 4, 4, D]."""

    feature_layout = "channels_last"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, WIDTH, 2, stride=2)
        self.patches.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.patches(images)
        return patches.permute(0, 2, 3, 1)


class Tokens(nn.Module):
    """Maps [B, 4, 4, D] to tokens [B, 17, D], a class token at the front."""

    feature_layout, token_grid, prefix_tokens = "tokens", (4, 4), 1

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, WIDTH))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([self.token.expand(len(maps), -1, -1), maps.flatten(1, 2)], dim=1)


class Classifier(nn.Linear):
    """Tokens to logits, by the mean of all."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.mean(dim=1))


def network(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    blocks: dict[str, nn.Module] = OrderedDict(maps=ChannelsLast(image_shape[0]), tokens=Tokens())
    blocks["mixed"] = nn.TransformerEncoderLayer(WIDTH, 1, 8, dropout=0.0, batch_first=True)
    blocks["classifier"] = Classifier(WIDTH, num_classes)
    return nn.Sequential(blocks)

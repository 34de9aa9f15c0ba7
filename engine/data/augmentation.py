"""Random augmentation and normalisation of a batch, on the learner's device.

All images of a batch are changed by a few operations on whole tensors; there is no loop over images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.data.batches import Batch
from engine.data.draws import Draws, crop_boxes, draw, erased_boxes
from engine.data.facts import Facts
from engine.data.placing import on_device
from engine.errors import RecipeError
from engine.recipes.data import Augmentation

# On a CPU, blocks of this size stay in its cache; larger ones are up to a third slower.
_BLOCK = 128
_LUMINANCE = (0.2989, 0.587, 0.114)


class Augmenter:
    """Turns batches of bytes into float32 images; equal seeds give equal images on every learner."""

    def __init__(self, augmentation: Augmentation, facts: Facts, seed: int, device: torch.device) -> None:
        """Prepare for the images of one data set.

        Raises:
            RecipeError: the images are too small to be padded by reflection.
        """
        channels, height, width = facts.image_shape
        padding = augmentation.crop_padding
        if padding and augmentation.padding_mode == "reflect" and padding >= min(height, width):
            raise RecipeError(
                f"data.augmentation.crop_padding={padding}, but images of {height} x {width} pixels can be reflected "
                f"by {min(height, width) - 1} pixels at most: give a smaller padding, or "
                "data.augmentation.padding_mode=zeros"
            )
        self._augmentation = augmentation
        self._crops = augmentation.random_resized_crop and not facts.cropped_while_decoding
        self._seed = seed
        self._device = device
        self._mean = torch.tensor(facts.mean, dtype=torch.float32, device=device).view(1, channels, 1, 1)
        self._std = torch.tensor(facts.std, dtype=torch.float32, device=device).view(1, channels, 1, 1)

    def training_pixels(self, batch: Batch) -> Tensor:
        """Return the augmented images, float32 [B, C, H, W] in [0, 1], a pure function of (batch, seed)."""
        images = on_device(batch.images, self._device)
        draws = draw(len(images), self._seed, batch.epoch, batch.step)
        if self._crops:
            pixels = self._resized_crop(images.float().div_(255), draws, "bilinear")
        else:
            pixels = self._shifted(images, draws)
        if self._augmentation.color_jitter:
            pixels = _jitter_color(pixels, self._factors(draws))
        if self._augmentation.random_erasing is not None:
            pixels = self._erased(pixels, batch, self._augmentation.random_erasing)
        return pixels

    def moved_labels(self, batch: Batch, no_label: int) -> Tensor:
        """Return label maps [B, H, W] of the augmented images: cropped, resized and mirrored as their pixels are.

        Args:
            batch: whose labels are maps [B, H, W] of integers, of the size of its images.
            no_label: the value of what padding adds; where padding reflects, the labels are reflected.
        """
        labels = on_device(batch.labels, self._device)[:, None]
        draws = draw(len(labels), self._seed, batch.epoch, batch.step)
        if self._crops:
            # The nearest label: a mean of classes is no class. Single precision holds integers up to 2 ** 24.
            return self._resized_crop(labels.float(), draws, "nearest")[:, 0].to(labels.dtype)
        if not self._augmentation.crop_padding and not self._augmentation.flip:
            return labels[:, 0]
        return _move(labels, *self._moves(draws), self._augmentation.padding_mode == "reflect", no_label)[:, 0]

    def evaluation_pixels(self, batch: Batch) -> Tensor:
        """Return the images as they are, float32 [B, C, H, W] in [0, 1]."""
        return on_device(batch.images, self._device).float().div_(255)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return (pixels - mean) / std, per channel, float32 [B, C, H, W]."""
        return (pixels - self._mean).div_(self._std)

    def _shifted(self, images: Tensor, draws: Draws) -> Tensor:
        """Crop out of the padded images and mirror them, as one gather of bytes."""
        if not self._augmentation.crop_padding and not self._augmentation.flip:
            return images.float().div_(255)
        shifts, mirror = self._moves(draws)
        pixels = torch.empty(images.shape, dtype=torch.float32, device=self._device)
        block = _BLOCK if self._device.type == "cpu" else max(1, len(images))
        for start in range(0, len(images), block):
            part = slice(start, start + block)
            moved = _move(images[part], shifts[:, part], mirror[part], self._augmentation.padding_mode == "reflect")
            torch.div(moved, 255, out=pixels[part])
        return pixels

    def _moves(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return how far images are moved, int64 [2, B], down and across, and which are mirrored, bool [B]."""
        padding = self._augmentation.crop_padding
        shifts = torch.floor(draws.shift * (2 * padding + 1)).long() - padding
        mirror = draws.mirror < 0.5 if self._augmentation.flip else torch.zeros_like(draws.mirror, dtype=torch.bool)
        return on_device(shifts, self._device), on_device(mirror, self._device)

    def _resized_crop(self, source: Tensor, draws: Draws, mode: str) -> Tensor:
        """Cut an area out of float32 [B, C, H, W], resize it to the whole (without antialiasing) and mirror it."""
        number, _, height, width = source.shape
        size = torch.ones(number, dtype=torch.float64)
        boxes = crop_boxes(draws.crop, size * height, size * width)
        # Image coordinates run from -1 to 1 between the outer edges of the border pixels.
        left, upper, right, lower = (boxes / torch.tensor([width, height] * 2) * 2 - 1).unbind(dim=1)
        scale_across = (right - left) / 2
        if self._augmentation.flip:
            scale_across = torch.where(draws.mirror < 0.5, -scale_across, scale_across)
        zero = torch.zeros_like(left)
        across = torch.stack([scale_across, zero, (left + right) / 2], dim=1)
        down = torch.stack([zero, (lower - upper) / 2, (upper + lower) / 2], dim=1)
        places = on_device(torch.stack([across, down], dim=1).float(), self._device)
        grid = functional.affine_grid(places, list(source.shape), align_corners=False)
        return functional.grid_sample(source, grid, mode=mode, padding_mode="border", align_corners=False)

    def _erased(self, pixels: Tensor, batch: Batch, probability: float) -> Tensor:
        height, width = pixels.shape[2:]
        boxes = erased_boxes(len(pixels), self._seed, batch.epoch, batch.step, probability, (height, width))
        left, upper, right, lower = on_device(boxes, self._device)[:, :, None].unbind(dim=1)
        rows, columns = torch.arange(height, device=self._device), torch.arange(width, device=self._device)
        inside = ((rows >= upper) & (rows < lower))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
        return torch.where(inside[:, None], self._mean, pixels)

    def _factors(self, draws: Draws) -> Tensor:
        strength = self._augmentation.color_jitter
        return on_device((1 + strength * (2 * draws.color - 1)).float(), self._device)


def _move(images: Tensor, shifts: Tensor, mirror: Tensor, reflect: bool, padded_with: int = 0) -> Tensor:
    """Return images moved by `shifts` (int64 [2, B], down and across) after padding, then mirrored where asked."""
    number, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) + shifts[0, :, None]
    plain = torch.arange(width, device=images.device)
    columns = torch.where(mirror[:, None], width - 1 - plain, plain) + shifts[1, :, None]
    if reflect:
        rows, columns = _reflected(rows, height), _reflected(columns, width)
        inside = None
    else:
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    places = (rows[:, :, None] * width + columns[:, None, :]).view(number, 1, -1).expand(-1, channels, -1)
    moved = images.view(number, channels, -1).gather(2, places).view(images.shape)
    if inside is None:
        return moved
    return torch.where(inside[:, None], moved, padded_with) if padded_with else moved * inside[:, None]


def _reflected(places: Tensor, length: int) -> Tensor:
    places = places.abs()
    return torch.where(places >= length, 2 * (length - 1) - places, places)


def _jitter_color(pixels: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation by factors [3, B]; grey images have no saturation."""
    brightness, contrast, saturation = factors.view(3, -1, 1, 1, 1)
    pixels = (pixels * brightness).clamp_(0, 1)
    middle = _grey(pixels).mean(dim=(2, 3), keepdim=True)
    pixels = torch.lerp(middle, pixels, contrast).clamp_(0, 1)
    if pixels.shape[1] == 1:
        return pixels
    return torch.lerp(_grey(pixels), pixels, saturation).clamp_(0, 1)


def _grey(pixels: Tensor) -> Tensor:
    """Return the luminance, [B, 1, H, W]."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = _LUMINANCE
    return red * pixels[:, 0:1] + green * pixels[:, 1:2] + blue * pixels[:, 2:3]

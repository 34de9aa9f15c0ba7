"""Images of one split by position: from an array, or decoded when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from engine.data.draws import crop_boxes, draw
from engine.data.parts import Picture
from engine.data.pictures.decoding import decoded
from engine.data.pictures.fitting import Fitting, crop_and_resize, fit, pixels
from engine.data.pictures.picture_limits import PictureError
from engine.data.threads import num_threads


class Images(Protocol):
    """The images of one split; positions are int64 [B], images uint8 [B, C, H, W]."""

    labels: np.ndarray
    look_ahead: bool
    """Whether reading takes so long that the next batches should be prepared while one is used."""

    def training_images(self, positions: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """Return the images of one training batch."""
        ...

    def evaluation_images(self, positions: np.ndarray) -> np.ndarray:
        """Return images without random changes."""
        ...

    def close(self) -> None:
        """Release threads."""
        ...


class StoredImages:
    """Images that lie decoded in an array, in memory or mapped from the disk."""

    look_ahead = False

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images = images
        self.labels = labels

    def evaluation_images(self, positions: np.ndarray) -> np.ndarray:
        """Return copies of the images at these positions."""
        return self._images[positions]

    def training_images(self, positions: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """Return copies of the images at these positions; they are augmented later, on the learner's device."""
        return self._images[positions]

    def close(self) -> None:
        """Do nothing: a memory map ends with the process's last reference to it."""


class EncodedImages:
    """Pictures that are decoded whenever they are needed, by several threads."""

    look_ahead = True

    def __init__(
        self,
        labels: np.ndarray,
        picture: Callable[[int], Picture],
        fittings: tuple[Fitting, Fitting],
        crop_seed: int | None,
    ) -> None:
        """Prepare to decode.

        Args:
            labels: int64 [N].
            picture: reads the picture at one position.
            fittings: the way to images of training that are not cropped at random, and to those of evaluation.
            crop_seed: the run's seed, when training takes random resized crops; None for the whole pictures, fitted.
        """
        self.labels = labels
        self.picture = picture
        self._training, self._evaluation = fittings
        self._crop_seed = crop_seed
        self._pool = ThreadPoolExecutor(num_threads(), thread_name_prefix="decode")

    def evaluation_images(self, positions: np.ndarray) -> np.ndarray:
        """Return the fitted pictures."""
        return self._map(lambda position: self._fitted(position, self._evaluation), positions)

    def training_images(self, positions: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """Return random resized crops, a pure function of (positions, seed, epoch, step), or else whole pictures."""
        if self._crop_seed is None:
            return self._map(lambda position: self._fitted(position, self._training), positions)
        crops = draw(len(positions), self._crop_seed, epoch, step).crop
        return self._map(self._crop, positions, crops.T)

    def close(self) -> None:
        """Stop the threads; pictures that nobody waits for are not decoded any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _map(self, work: Callable[..., np.ndarray], *arguments: np.ndarray | torch.Tensor) -> np.ndarray:
        return np.stack(list(self._pool.map(work, *arguments)))

    @contextmanager
    def _decoded(self, position: int) -> Iterator[Image.Image]:
        try:
            with decoded(self.picture(int(position))) as (image, _):
                yield image
        except PictureError as error:
            remedy = (
                "it could be decoded before the training began, so the disk or somebody has changed it since: put the "
                "same file back, and the same command goes on from the newest checkpoint"
            )
            raise PictureError(error.where, error.cause, remedy) from error

    def _fitted(self, position: int, fitting: Fitting) -> np.ndarray:
        with self._decoded(position) as image:
            return pixels(fit(image, fitting))

    def _crop(self, position: int, crop: torch.Tensor) -> np.ndarray:
        with self._decoded(position) as image:
            width, height = (torch.tensor([float(length)], dtype=torch.float64) for length in image.size)
            left, upper, right, lower = crop_boxes(crop[:, None], height, width)[0].tolist()
            return pixels(crop_and_resize(image, (left, upper, right, lower), self._training.size))

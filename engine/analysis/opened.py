"""A run opened for its analysis: its networks, its learners with their heads, and a fixed set of its images."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from engine.analysis.images import ImageSet
from engine.analysis.names import ANALYSIS_FOLDER
from engine.analysis.pixels import one_image, pixel_predictions
from engine.backbones import FeatureLayout, feature_shapes
from engine.checkpoints.manifests import MANIFEST
from engine.data import NO_LABEL, Augmenter, Batch, Source, open_source
from engine.errors import RunError
from engine.learners import Learner, choose_device
from engine.learners.hooks import POOLED, OutputHooks
from engine.learners.recalibration import Recalibration
from engine.methods import Network, Team, method_of, trained_team
from engine.paths import absolute
from engine.reading import JSON_BYTES, read_bytes
from engine.recipes import Numerics, with_absolute_paths, without_files
from engine.streams import generator
from engine.tasks import Task, task_of
from engine.training import Run, load

PROBED_IMAGES = 10_000
"""Training images from which a probe learns, at most."""


@dataclass(frozen=True)
class Settings:
    """On what an analysis looks.

    Attributes:
        split: whose images: train (without augmentation), validation or test.
        images: how many of them, drawn by the seed; all where there are no more.
        seed: of the draw, and of all that an analysis draws itself.
        data_root: where the images lie now; where each recipe says unless given.
        probe_epochs: for how many epochs a probe of `information` learns; by the recipe's epochs unless given.
        positions: of these images in the split, counted from 0, in the place of those that would be drawn.
    """

    split: str = "test"
    images: int = 1000
    seed: int = 0
    data_root: str | None = None
    positions: tuple[int, ...] | None = None
    probe_epochs: int | None = None


class OpenedRun:
    """A run, its images, and what it has trained; computes in float32, whatever precision it was trained in.

    Args:
        place: a run folder, or one of its checkpoints.
        settings: on what is looked.

    Attributes:
        run: as it was loaded; of a checkpoint that was given, with that one.
        folder: where what is found out is written to.
        source: of the images.
        task: of the recipe.
        device: where to compute.

    Raises:
        RunError: it is no run, or was trained on other images; DataError: they are missing.
    """

    def __init__(self, place: str | Path, settings: Settings) -> None:
        self.settings = settings
        self.run, self.folder = _load(place)
        recipe = self.run.recipe
        data = recipe.data
        if settings.data_root is not None:
            moved = dataclasses.replace(recipe, data=dataclasses.replace(data, root=settings.data_root))
            data = with_absolute_paths(moved).data
        self.source: Source = open_source(data, recipe.seed, check=False)
        if self.source.facts.fingerprint != self.run.facts.fingerprint:
            self.source.close()
            raise RunError(
                f"{self.run.path}: was trained on other images than data.root={data.root} holds "
                f"({self.run.facts.describe()} then, {self.source.facts.describe()} now); give the same images and "
                "labels, as with --data-root"
            )
        self.task: Task = task_of(recipe, self.run.facts)
        self.device = choose_device(self.numerics, torch.cuda.is_available())
        self._predicting: dict[str, bool] = {}
        self._augmenter = Augmenter(recipe.data.augmentation, self.run.facts, recipe.seed, self.device)

    def __enter__(self) -> OpenedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.close()

    @property
    def numerics(self) -> Numerics:
        """How it computes: as the recipe, but repeatable, on what is here, and in single precision."""
        return dataclasses.replace(self.run.numerics_here, deterministic=True, precision="float32")

    @functools.cached_property
    def team(self) -> Team:
        """Learners and programs of the recipe, as far as a checkpoint is enough for them."""
        return trained_team(self.run.recipe, self.run.facts)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the deployed networks, without those that have left their cohort."""
        gone = set(self.run.diverged)
        return tuple(name for name, network in self.team.networks.items() if not gone & set(network.learners))

    def deployed(self, name: str) -> Network:
        """Return what a network is made of."""
        return self.team.networks[name]

    @functools.cached_property
    def places(self) -> np.ndarray:
        """Where the images that are looked at stand in their split, int64 [N], ascending; all have a label.

        Raises:
            RunError: the split holds none, or none at a position that was asked for.
        """
        known = self._labelled(self.settings.split)
        if self.settings.positions is not None:
            return self._asked(self.settings.positions, known)
        return self._drawn(known, self.settings.split, self.settings.images)

    @functools.cached_property
    def images(self) -> ImageSet:
        """The images that are looked at, all at once; not those that have label maps, whose sizes may differ."""
        return self._set(self.settings.split, self.places)

    @functools.lru_cache(maxsize=2)  # noqa: B019  A run is opened for one command.
    def probed(self, most: int = PROBED_IMAGES) -> ImageSet:
        """Return the training images from which probes learn: all that have a label, or so many drawn by the seed."""
        return self._set("train", self._drawn(self._labelled("train"), "train", most))

    def _labelled(self, split: str) -> np.ndarray:
        sizes = self.source.facts.sizes
        if self.run.facts.label_maps:
            known = np.arange(sizes.get(split, 0))
        else:
            known = np.flatnonzero(self.source.labels_of(split) != NO_LABEL) if sizes.get(split) else np.empty(0, int)
        if not len(known):
            raise RunError(
                f"--split {split}: {self.run.path} has no labelled image there; give one of "
                f"{', '.join(name for name, size in sizes.items() if size)}"
            )
        return known

    def _drawn(self, known: np.ndarray, split: str, count: int) -> np.ndarray:
        order = torch.randperm(len(known), generator=generator(self.settings.seed, "analysis", split)).numpy()
        places: np.ndarray = np.sort(known[order[:count]])
        return places

    def _set(self, split: str, places: np.ndarray) -> ImageSet:
        batch = self.source.evaluation_images(split, places)
        return ImageSet(batch, places, self.run.recipe.data.evaluation_batch_size, self._augmenter, self.device)

    def _asked(self, positions: tuple[int, ...], known: np.ndarray) -> np.ndarray:
        wrong = sorted(set(positions) - set(known.tolist()))
        if wrong:
            size = self.source.facts.sizes[self.settings.split]
            raise RunError(
                f"--positions {wrong[0]}: {self.run.path} has no labelled image there in {self.settings.split}; "
                f"expected 0 to {size - 1}"
            )
        return np.array(sorted(set(positions)))

    @functools.cached_property
    def images_sha256(self) -> str:
        """The digest of these images and their labels."""
        if self.run.facts.label_maps:
            digest = hashlib.sha256()
            for batch in (one_image(self, int(place)) for place in self.places):
                digest.update(np.ascontiguousarray(batch.images).tobytes() + batch.labels.tobytes())
            return digest.hexdigest()
        labels = self.images.batch.labels.astype("<i8").tobytes()
        return hashlib.sha256(np.ascontiguousarray(self.images.batch.images).tobytes() + labels).hexdigest()

    @functools.cached_property
    def checkpoint_sha256(self) -> str:
        """The digest of the checkpoint's manifest, which lists the digests of all its files."""
        manifest = self.run.checkpoint.path / MANIFEST
        return hashlib.sha256(read_bytes(manifest, RunError, JSON_BYTES)).hexdigest()

    def network(self, name: str) -> nn.Sequential:
        """Return a deployed network on the device, in evaluation mode, as an evaluation scores it."""
        network = self.run.network(name).to(self.device)
        if self.team.recalibration is not None:
            recalibration = Recalibration(network)
            for batch in self.source.recalibration_batches(self.team.recalibration_images):
                recalibration.add(self._augmenter.normalise(self._augmenter.training_pixels(batch)))
            recalibration.finish()
        return network

    def learners(self, name: str) -> dict[str, Learner]:
        """Return the learners whose bodies form a network, by name, with all their weights, in evaluation mode."""
        recipe = dataclasses.replace(without_files(self.run.recipe), numerics=self.numerics)
        found = {}
        for learner in self.deployed(name).learners:
            steps = self.source.steps_per_epoch()
            built = method_of(recipe).build_learner(recipe, self.run.facts, steps, learner, self.device)
            assert isinstance(built, Learner), f"{learner} of a deployed network trains nothing"
            # Nothing is learned here, so nothing need be remembered, which may be gigabytes.
            built.restore(dataclasses.replace(self.run.checkpoint.states[learner], knowledge={}))
            built.body.eval()
            built.objective.eval()
            found[learner] = built
        return found

    def predicts(self, network: str, learner: str) -> bool:
        """Return whether the local head of a segment predicts a class."""
        if learner not in self._predicting:
            objective = self.learners(network)[learner].objective
            shape = self.shape_behind(network, learner)
            with torch.no_grad():
                self._predicting[learner] = objective.predict(torch.zeros(1, *shape, device=self.device)) is not None
        return self._predicting[learner]

    def shape_behind(self, network: str, learner: str) -> FeatureLayout:
        """Return shape and layout of what a segment hands on, without the batch axis."""
        blocks = {each.name: len(each.blocks) for each in self.team.learners}
        names = self.deployed(network).learners
        stop = sum(blocks[name] for name in names[: names.index(learner) + 1])
        return self.shapes(network)[stop - 1]

    @functools.lru_cache(maxsize=4)  # noqa: B019  A run is opened for one command.
    def shapes(self, network: str) -> tuple[FeatureLayout, ...]:
        """Return shape and layout of what each block of a network gives, without the batch axis."""
        return feature_shapes(self.run.network(network), self.run.facts.image_shape)

    @functools.lru_cache(maxsize=4)  # noqa: B019  A run is opened for one command.
    def outputs(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a network's logits [N, classes] and the features [N, D] that enter its last linear layer, float32."""
        found = self._outputs(self.network(name), self.images.slices())
        logits, features = (torch.cat(each).numpy() for each in zip(*found, strict=True))
        return logits, features

    def predictions(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a network's logits, float32 [M, classes], and the labels, int64 [M]: of the images, or of pixels."""
        if self.run.facts.label_maps:
            return pixel_predictions(self, name)
        return self.outputs(name)[0], self.images.batch.labels

    def inputs_of(self, batch: Batch) -> Tensor:
        """Return what networks take of a batch: normalised, float32 [B, C, H, W], on the device."""
        return self._augmenter.normalise(self._augmenter.evaluation_pixels(batch))

    def width(self, name: str) -> int:
        """Return how many features of an image enter the last linear layer of a network."""
        ((_, features),) = self._outputs(self.run.network(name).to(self.device), [slice(0, 1)])
        return features.shape[1]

    @torch.no_grad()
    def _outputs(self, network: nn.Sequential, batches: Sequence[slice]) -> list[tuple[Tensor, Tensor]]:
        hooks, found = OutputHooks(network, (POOLED,)), []
        for rows in batches:
            with hooks.recording() as recorded:
                logits = network(self.images.inputs(rows)).cpu()
            found.append((logits, recorded[POOLED].flatten(1).cpu()))
        return found


def _load(place: str | Path) -> tuple[Run, Path]:
    """Return the run of a folder or of one of its checkpoints, and the folder for what is found out about it."""
    path = absolute(place, "RUN", RunError)
    run = load(path)
    found = run.path / ANALYSIS_FOLDER
    return run, found if run.path == path else found / path.name

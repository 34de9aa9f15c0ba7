"""The baselines: which can be measured beside a recipe, their settings to choose from, and why others cannot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine import backbones
from engine.benchmarking.baselines.job import Kind
from engine.benchmarking.batches import Images
from engine.benchmarking.cases import Family, Machine
from engine.benchmarking.schedules import SCHEDULES, PipelineFamily
from engine.errors import RecipeError
from engine.methods import method_of
from engine.recipes import Recipe, nearest
from engine.tasks import task_of

PIPELINES: tuple[PipelineFamily, ...] = ("gpipe", "1f1b", "interleaved", "zero_bubble")
BASELINES: dict[str, Family] = {
    "checkpoint": "checkpoint",
    **{family: family for family in PIPELINES},
    "ddp": "ddp",
    "fsdp": "fsdp",
}
"""Words of ``--against``, in the order of the table."""

TITLES = {
    "checkpoint": "checkpointing",
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "interleaved stages",
    "zero_bubble": "zero bubble",
    "ddp": "DDP",
    "fsdp": "FSDP2",
}
VARIANTS = (2, 4, 8, 16)
"""Numbers of chunks, and of micro-batches, among which the best is found."""
_BUCKETS_MIB = (1, 5, 25, 100)


def check_baselines(against: Sequence[str]) -> None:
    """Refuse unknown baselines, each with the nearest that there is; raises RecipeError."""
    unknown = [name for name in against if name not in BASELINES]
    if unknown:
        lines = [f"--against {name}: there is no such baseline{nearest(name, BASELINES)}" for name in unknown]
        raise RecipeError("\n".join(lines))


def uneven(batch_size: int, parts: int) -> str:
    """Return why a batch cannot be divided into parts of 2 images or more, the least for a batch norm; "" if it can."""
    if parts == 1 or (batch_size % parts == 0 and batch_size // parts > 1):
        return ""
    return f"a batch of {batch_size} images does not divide into {parts} equal parts of 2 or more"


@dataclass(frozen=True)
class Choice:
    """A baseline, and the settings among which its best are found by running them.

    Attributes:
        name: in words, with its workers or threads.
        family: what it is.
        workers: processes that compute at the same time.
        threads: torch threads of each.
        starts: settings, at least one; those of pipelines lack a cut, which follows from the times of the blocks.
    """

    name: str
    family: Family
    workers: int
    threads: int
    starts: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class ChoiceGroup:
    """Baselines that the same processes serve.

    Attributes:
        kind: which module trains.
        choices: at least one.
        devices: where each process computes; one process for each.
        recipe: that every process gets.
    """

    kind: Kind
    choices: tuple[Choice, ...]
    devices: tuple[str, ...]
    recipe: Recipe


class BaselineCases:
    """The ways of others.

    Args:
        images: recipe, facts and batches.
        against: words of `BASELINES`.
        worker_counts: at which those with several workers are measured.
        machine: to compute with.

    Attributes:
        groups: of baselines, in the order of the table.
        left_out: reasons, by what is not measured.
        blocks: names of the network's blocks; empty where no baseline can be measured.
    """

    def __init__(self, images: Images, against: Sequence[str], worker_counts: Sequence[int], machine: Machine) -> None:
        self._images, self._recipe, self._machine = images, images.recipe, machine
        self._batch = images.batches.batch_size
        self.groups: list[ChoiceGroup] = []
        self.left_out: dict[str, str] = {}
        self.blocks: list[str] = []
        reason = self._why_none()
        if reason is not None:
            self.left_out |= {TITLES[name]: reason for name in against}
            return
        if "checkpoint" in against:
            for threads in machine.thread_counts(self._recipe, worker_counts):
                self._add("checkpointing", 1, [self._checkpointing(threads)], threads)
        if not worker_counts:
            reason = "no team here has several workers"
            self.left_out |= {TITLES[name]: reason for name in against if name != "checkpoint"}
        threads = self._recipe.numerics.threads
        for workers in worker_counts:
            pipelines = [self._pipeline(each, workers) for each in PIPELINES if each in against]
            self._add("pipelines", workers, [each for each in pipelines if each.starts], threads)
            parallel = [self._choice(each, workers, self._divided(each)) for each in ("ddp", "fsdp") if each in against]
            self._add("data_parallel", workers, parallel, threads)

    def _why_none(self) -> str | None:
        recipe, facts = self._recipe, self._images.facts
        if len(method_of(recipe).team(recipe, facts).networks) > 1:
            return f"method.kind={recipe.method.kind} trains several networks, a baseline only one"
        if task_of(recipe, facts).num_classes is None:
            return f"task.kind={recipe.task.kind} has another loss than that of classes, which baselines learn by"
        for name, value in recipe.task.further_fields.items():
            return f"task.{name}={value} asks for more than the loss of classes, which baselines learn by"
        if recipe.numerics.precision == "float16":
            return "numerics.precision=float16 needs gradients to be scaled, which is not built for baselines"
        network = backbones.build(recipe.backbone, facts.num_classes, facts.image_shape, recipe.seed)
        if backbones.auxiliary_heads(recipe.backbone, network, facts.num_classes, facts.image_shape):
            return f"{recipe.backbone.name} has auxiliary classifiers, which baselines do not train"
        self.blocks = [name for name, _ in network.named_children()]
        self._parameter_bytes = sum(each.numel() * each.element_size() for each in network.parameters())
        return None

    def _checkpointing(self, threads: int) -> Choice:
        starts = tuple({"chunks": chunks} for chunks in VARIANTS if chunks <= len(self.blocks))
        words = "" if self._machine.gpus else f", {threads} thread{'s' if threads > 1 else ''}"
        return Choice(TITLES["checkpoint"] + words, "checkpoint", 1, threads, starts)

    def _pipeline(self, family: PipelineFamily, workers: int) -> Choice:
        starts: list[Mapping[str, Any]] = []
        for word, schedule in SCHEDULES.items():
            if schedule.family != family:
                continue
            name, stages = f"{schedule.title}, {workers} workers", workers * schedule.stages_per_worker
            if stages > len(self.blocks) - 1:
                self.left_out[name] = (
                    f"it needs {stages} stages, and the network has {len(self.blocks) - 1} blocks that can end one"
                )
                continue
            for parts in VARIANTS:
                if reason := uneven(self._batch, parts):
                    self.left_out[f"pipelines, {parts} micro-batches"] = reason
                elif word == "1f1b" and parts < workers:
                    self.left_out[f"{name}, {parts} micro-batches"] = "1F1B needs at least as many as workers"
                else:
                    starts.append({"schedule": word, "micro_batches": parts})
        return self._choice(family, workers, starts)

    def _divided(self, baseline: str) -> list[dict[str, Any]]:
        if baseline == "fsdp":
            units = ((True, True), (True, False), (False, False))
            return [{"sharded": True, "by_block": block, "reshard": again} for block, again in units]
        # All sizes that hold the whole network are the same.
        whole = math.ceil(self._parameter_bytes / 2**20)
        smaller = [size for size in _BUCKETS_MIB if size < whole]
        sizes = [*smaller, next((size for size in _BUCKETS_MIB if size >= whole), whole)]
        return [{"sharded": False, "bucket_mib": size} for size in sizes]

    def _choice(self, word: str, workers: int, starts: Sequence[Mapping[str, Any]]) -> Choice:
        threads = self._recipe.numerics.threads
        return Choice(f"{TITLES[word]}, {workers} workers", BASELINES[word], workers, threads, tuple(starts))

    def _add(self, kind: Kind, workers: int, choices: Sequence[Choice], threads: int) -> None:
        gpus = self._machine.gpus
        for choice in choices:
            if gpus and workers > gpus:
                self.left_out[choice.name] = f"each of {workers} workers needs a GPU of its own, and there is {gpus}"
            elif kind == "data_parallel" and uneven(self._batch, workers):
                self.left_out[choice.name] = uneven(self._batch, workers)
        kept = tuple(choice for choice in choices if choice.name not in self.left_out)
        if kept:
            devices = tuple(f"cuda:{rank}" if gpus else "cpu" for rank in range(workers))
            numerics = dataclasses.replace(self._recipe.numerics, threads=threads)
            self.groups.append(ChoiceGroup(kind, kept, devices, dataclasses.replace(self._recipe, numerics=numerics)))

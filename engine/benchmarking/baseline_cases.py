"""The baselines' cases: which can be measured beside a recipe, and why others cannot."""

from __future__ import annotations

from collections.abc import Sequence

from engine import backbones
from engine.benchmarking.baselines.job import Kind
from engine.benchmarking.batches import Images
from engine.benchmarking.cases import Case, CaseGroup, Family, Machine
from engine.errors import RecipeError
from engine.methods import method_of
from engine.recipes import nearest
from engine.tasks import task_of

BASELINES: dict[str, Family] = {
    "checkpoint": "checkpoint",
    "gpipe": "gpipe",
    "1f1b": "1f1b",
    "ddp": "ddp",
    "fsdp": "fsdp",
}
"""Words of ``--against``, in the order of the table."""

TITLES = {"checkpoint": "checkpointing", "gpipe": "GPipe", "1f1b": "1F1B", "ddp": "DDP", "fsdp": "FSDP2"}
VARIANTS = (2, 4, 8)
"""Numbers of chunks, and of micro-batches, of which the best is shown."""


def check_baselines(against: Sequence[str]) -> None:
    """Refuse unknown baselines, each with the nearest that there is; raises RecipeError."""
    unknown = [name for name in against if name not in BASELINES]
    if unknown:
        lines = [f"--against {name}: there is no such baseline{nearest(name, BASELINES)}" for name in unknown]
        raise RecipeError("\n".join(lines))


class BaselineCases:
    """The ways of others.

    Args:
        images: recipe, facts and batches.
        against: words of `BASELINES`.
        worker_counts: at which those with several workers are measured.
        machine: to compute with.

    Attributes:
        groups: of cases, in the order of the table.
        left_out: reasons, by what is not measured.
    """

    def __init__(self, images: Images, against: Sequence[str], worker_counts: Sequence[int], machine: Machine) -> None:
        self._images, self._recipe, self._machine = images, images.recipe, machine
        self._batch = images.batches.batch_size
        self.groups: list[CaseGroup] = []
        self.left_out: dict[str, str] = {}
        reason = self._why_none()
        if reason is not None:
            self.left_out |= {TITLES[name]: reason for name in against}
            return
        if "checkpoint" in against:
            self._add("checkpointing", 1, self._checkpointing())
        if not worker_counts:
            reason = "no team here has several workers"
            self.left_out |= {TITLES[name]: reason for name in against if name != "checkpoint"}
        for workers in worker_counts:
            pipelines = [each for each in ("gpipe", "1f1b") if each in against]
            self._add("pipelines", workers, [case for each in pipelines for case in self._pipelines(each, workers)])
            parallel = [each for each in ("ddp", "fsdp") if each in against]
            self._add("data_parallel", workers, [self._parallel(each, workers) for each in parallel])

    def _why_none(self) -> str | None:
        recipe, facts = self._recipe, self._images.facts
        if len(method_of(recipe).team(recipe, facts).networks) > 1:
            return f"method.kind={recipe.method.kind} trains several networks, a baseline only one"
        if task_of(recipe, facts).num_classes is None:
            return f"task.kind={recipe.task.kind} has another loss than that of classes, which baselines learn by"
        if recipe.numerics.precision == "float16":
            return "numerics.precision=float16 needs gradients to be scaled, which is not built for baselines"
        network = backbones.build(recipe.backbone, facts.num_classes, facts.image_shape, recipe.seed)
        if backbones.auxiliary_heads(recipe.backbone, network, facts.num_classes, facts.image_shape):
            return f"{recipe.backbone.name} has auxiliary classifiers, which baselines do not train"
        self._children = len(network)
        return None

    def _checkpointing(self) -> list[Case]:
        cases = []
        for chunks in VARIANTS:
            name = f"checkpointing, {chunks} chunks"
            if chunks > self._children:
                self.left_out[name] = f"the network has {self._children} blocks"
            else:
                cases.append(self._case(name, "checkpoint", 1, chunks, chunks=chunks))
        return cases

    def _pipelines(self, schedule: str, workers: int) -> list[Case]:
        cases = []
        for parts in VARIANTS:
            name = f"{TITLES[schedule]}, {workers} workers, {parts} micro-batches"
            if workers > self._children - 1:
                self.left_out[name] = f"the network has {self._children - 1} blocks that can end a stage"
            elif self._uneven(parts):
                self.left_out[name] = self._uneven(parts)
            elif schedule == "1f1b" and parts < workers:
                self.left_out[name] = "1F1B needs at least as many micro-batches as workers"
            else:
                cases.append(
                    self._case(name, BASELINES[schedule], workers, parts, schedule=schedule, micro_batches=parts)
                )
        return cases

    def _parallel(self, baseline: str, workers: int) -> Case:
        return self._case(
            f"{TITLES[baseline]}, {workers} workers", BASELINES[baseline], workers, None, sharded=baseline == "fsdp"
        )

    def _uneven(self, parts: int) -> str:
        """Return why a batch cannot be divided; nothing if it can."""
        if self._batch % parts == 0 and self._batch // parts > 1:
            return ""
        return f"a batch of {self._batch} images does not divide into {parts} equal parts of 2 or more"

    def _case(self, name: str, family: Family, workers: int, variant: int | None, **settings: str | int) -> Case:
        return Case(name, family, workers, self._recipe.numerics.threads, None, variant, settings)

    def _add(self, kind: Kind, workers: int, cases: Sequence[Case]) -> None:
        gpus = self._machine.gpus
        for case in cases:
            if gpus and workers > gpus:
                self.left_out[case.name] = f"each of {workers} workers needs a GPU of its own, and there is {gpus}"
            elif kind == "data_parallel" and self._uneven(workers):
                self.left_out[case.name] = self._uneven(workers)
        kept = tuple(case for case in cases if case.name not in self.left_out)
        if kept:
            devices = tuple(f"cuda:{rank}" if gpus else "cpu" for rank in range(workers))
            self.groups.append(CaseGroup(kind, kept, devices, self._recipe))

"""A trial: one run of a search, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from engine.search.settings import Settings

Status = Literal["waiting", "running", "finished", "pruned", "failed", "lost"]


@with_config(ConfigDict(extra="forbid", strict=True))
class Stage(TypedDict):
    """A part of a training that a member of a population has taken over from another."""

    until_epoch: Annotated[int, Field(ge=0, lt=2**63)]
    """Finished epochs at its end."""
    run: Annotated[str, Field(pattern=r"^trial-\d{4,5}(-from-epoch-\d{1,19})?$")]
    """Name of the run folder that trained it."""
    settings: dict[str, Any]
    """Values of the searched fields in it."""


@dataclass
class Trial:
    """One run of a search.

    Attributes:
        number: from 0, in the order in which settings were drawn.
        settings: values of the searched fields; of a member of a population those that it has now.
        status: ``pruned`` where the scheduler stopped it early, ``failed`` where an error did, ``lost`` where a process
            or node ended or a disk was full, after which the same command goes on with it; a member of a population is
            ``waiting`` between two generations, too.
        epochs: finished epochs.
        metrics: newest value of every score of the validation images, of memory in bytes and of images per second; of
            the winners those of the test images, too.
        error: why it failed or was lost.
        generation: of a member of a population, how often it had the choice to copy another one.
        lineage: of a member of a population that copied another one, what had been trained before its own run folder
            began.
    """

    number: int
    settings: Settings
    status: Status = "waiting"
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    generation: int = 0
    lineage: list[Stage] = field(default_factory=list)

    @property
    def began_at(self) -> int:
        """Finished epochs at the beginning of its run folder."""
        return self.lineage[-1]["until_epoch"] if self.lineage else 0

    @property
    def name(self) -> str:
        """Name of its run folder; a member of a population has a new one from each copy on."""
        name = f"trial-{self.number:04d}"
        return f"{name}-from-epoch-{self.began_at}" if self.lineage else name

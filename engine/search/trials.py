"""What is known of the trials of a search, and how does it outlive the process that drives the search?"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

from engine.atomic import replace_file, replacing, write_error
from engine.errors import RunError
from engine.recipes import Recipe, recipe_identity
from engine.search.definition import Sweep
from engine.search.settings import Settings
from engine.training.folder import Resume, free_folder

Status = Literal["waiting", "running", "finished", "pruned", "failed", "lost"]
_CONTENT, _LOG = "sweep.json", "trials.jsonl"


class Stage(TypedDict):
    """A part of a training that a member of a population has taken over from another."""

    until_epoch: int
    """Finished epochs at its end."""
    run: str
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
            or node ended, after which the same command goes on with it; a member of a population is ``waiting`` between
            two generations, too.
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


class SweepFolder:
    """The folder of a search that this process alone drives: definition, trials, and their run folders.

    Args:
        sweep: what is searched.
        base: the recipe before any setting.
        run_dir: the folder; ``runs/sweep-NAME-DIGEST`` unless given.
        resume: ``auto`` goes on with the search in the folder, ``never`` starts a new one beside it.

    Raises:
        RunError: the folder holds something else, or another process drives a search in it.
    """

    def __init__(self, sweep: Sweep, base: Recipe, run_dir: Path | None, resume: Resume) -> None:
        content = _content(sweep, base)
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        path = run_dir if run_dir is not None else Path("runs") / f"sweep-{sweep.name}-{digest}"
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: is a file; give the name of a folder")
        self.path = Path(os.path.abspath(free_folder(path) if resume == "never" else path))
        earlier = _read(self.path / _CONTENT)
        if (
            earlier is None
            and self.path.is_dir()
            and any(not each.name.startswith(".") for each in self.path.iterdir())
        ):
            raise RunError(f"{self.path}: holds files but no readable {_CONTENT}, so it is no search; give --run-dir")
        if earlier is not None and earlier != content:
            changed = sorted(name for name in content if earlier.get(name) != content[name])
            raise RunError(
                f"{self.path}: holds another search (other {', '.join(changed)}); give another --run-dir, or --resume "
                "never to start a new one beside it"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (self.path / ".lock").open("w")
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RunError(f"{self.path}: another process searches in this folder; wait for it") from None
        if earlier is None:
            replace_file(self.path / _CONTENT, (json.dumps(content, indent=2) + "\n").encode())
        _mend(self.path / _LOG)
        self.trials = _trials(self.path / _LOG)

    def run_dir(self, trial: Trial) -> Path:
        """Return the run folder of a trial."""
        return self.path / "trials" / trial.name

    def note(self, trial: Trial) -> None:
        """Keep what is known of a trial; it is on the disk when this returns."""
        self.trials[trial.number] = trial
        try:
            with (self.path / _LOG).open("a") as file:
                file.write(json.dumps(_values(trial)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self.path / _LOG, error) from error

    def write_table(self, trials: Sequence[Trial]) -> Path:
        """Write trials.parquet: a row for each trial, a column for each field and metric; returns its path."""
        import pyarrow
        import pyarrow.parquet

        names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
        metrics = sorted({name for trial in trials for name in trial.metrics})
        columns: dict[str, list[Any]] = {
            "trial": [trial.number for trial in trials],
            "status": [trial.status for trial in trials],
            "epochs": [trial.epochs for trial in trials],
            "run_dir": [str(self.run_dir(trial)) for trial in trials],
            "error": [trial.error for trial in trials],
        }
        for name in names:
            values = [trial.settings.get(name) for trial in trials]
            numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
            column = name if name not in columns and name not in metrics else f"setting/{name}"
            columns[column] = (
                [float(str(value)) for value in values] if numbers else [json.dumps(value) for value in values]
            )
        if any(trial.lineage for trial in trials):
            columns["lineage"] = [json.dumps(trial.lineage) for trial in trials]
        for name in metrics:
            columns[name] = [trial.metrics.get(name, math.nan) for trial in trials]
        path = self.path / "trials.parquet"
        with replacing(path) as aside:
            pyarrow.parquet.write_table(pyarrow.table(columns), aside)
        return path

    def close(self) -> None:
        """Let other processes drive the search."""
        self._lock.close()


def _content(sweep: Sweep, base: Recipe) -> dict[str, Any]:
    # The number of trials may grow from one start to the next, but not that of a population.
    told = ["fields", "metric", "against", "searcher", "scheduler", "grace_epochs", "reduction_factor", "seed"]
    if sweep.scheduler == "pbt":
        told += ["num_samples", "perturb_every_epochs"]
    values = {name: getattr(sweep, name) for name in told}
    space = {name: _described(domain) for name, domain in sweep.space.items()}
    content: dict[str, Any] = {"name": sweep.name, "recipe": recipe_identity(base), "space": space, **values}
    found: dict[str, Any] = json.loads(json.dumps(content))
    return found


def _described(domain: Any) -> str:
    if isinstance(domain, dict):
        return repr(domain)
    return f"{type(domain).__name__} {domain.domain_str} {_sampling(domain.get_sampler())}"


def _sampling(sampler: Any) -> str:
    # Samplers have no text of their own that would be the same in the next process; one may hold another.
    plain = sorted((name, value) for name, value in vars(sampler).items() if isinstance(value, (int, float, str)))
    inner = getattr(sampler, "sampler", None)
    return f"{type(sampler).__name__} {plain}" + (f" of {_sampling(inner)}" if inner is not None else "")


def _mend(log: Path) -> None:
    """Cut off what a process was writing when it was killed, so that the next line does not follow it."""
    content = log.read_bytes() if log.is_file() else b""
    if content and not content.endswith(b"\n"):
        whole, _, last = content.rpartition(b"\n")
        try:
            json.loads(last)
        except ValueError:
            content = whole + b"\n" if whole else b""
        else:
            content += b"\n"
        replace_file(log, content)


def _values(trial: Trial) -> dict[str, Any]:
    metrics = {name: value if math.isfinite(value) else None for name, value in trial.metrics.items()}
    return {**dataclasses.asdict(trial), "settings": dict(trial.settings), "metrics": metrics}


def _trials(log: Path) -> dict[int, Trial]:
    found: dict[int, Trial] = {}
    lines = log.read_text().splitlines() if log.is_file() else []
    for place, line in enumerate(lines):
        try:
            values: Mapping[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise RunError(
                f"{log}: line {place + 1} is no JSON; remove the folder, or give another --run-dir"
            ) from None
        metrics = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
        found[values["number"]] = Trial(**{**values, "metrics": metrics})
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None

"""Folder of a search: what it holds, and who may write to it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict

from engine.atomic import remove_unfinished, replace_file, replacing, write_error
from engine.errors import RunError
from engine.paths import absolute, kind_of
from engine.reading import checked, naming, read_json, without_version
from engine.recipes import Recipe, recipe_identity
from engine.search.definition import Sweep
from engine.search.trial import Trial
from engine.search.trial_log import append_trial, read_trials
from engine.training.folder import Resume, free_folder, names_in
from engine.training.holding import hold, release

_CONTENT, _LOG, _TRIALS, _SCRATCH = "sweep.json", "trials.jsonl", "trials", ".tune"
SWEEP_VERSION = 1
"""Of the form of a search's folder, said in its sweep.json: raised when the one before would be misread."""

_ADVICE = "bring back a whole copy of it, or give another --run-dir, or --resume never to start a new search beside it"


@with_config(ConfigDict(extra="forbid", strict=True))
class _Content(TypedDict):
    name: str
    recipe: str
    space: dict[str, str]
    fields: list[str]
    metric: str
    against: list[str]
    searcher: str
    scheduler: str
    grace_epochs: int
    reduction_factor: int
    seed: int
    num_samples: NotRequired[int]
    perturb_every_epochs: NotRequired[int]


_CONTENT_SHAPE = TypeAdapter(_Content)


def folder_of(sweep: Sweep, base: Recipe, run_dir: Path | None, resume: Resume) -> Path:
    """Return the folder of a search, without writing anything.

    Args:
        sweep: what is searched.
        base: the recipe before any setting.
        run_dir: the folder; ``runs/sweep-NAME-DIGEST`` unless given.
        resume: ``auto`` takes the folder, ``never`` the first free name beside it.

    Raises:
        RunError: the path is no folder, or cannot be one.
    """
    digest = hashlib.sha256(json.dumps(_content(sweep, base), sort_keys=True).encode()).hexdigest()[:8]
    usual = Path("runs") / f"sweep-{sweep.name}-{digest}"
    path = absolute(run_dir if run_dir is not None else usual, "--run-dir", RunError)
    if kind_of(path, "--run-dir", RunError) not in (None, "folder"):
        raise RunError(f"{path}: is a file; give the name of a folder")
    return free_folder(path) if resume == "never" else path


class SweepFolder:
    """The folder of a search that this process alone drives: definition, trials, and their run folders.

    Args:
        sweep: what is searched.
        base: the recipe before any setting.
        run_dir: the folder; ``runs/sweep-NAME-DIGEST`` unless given.
        resume: ``auto`` goes on with the search in the folder, ``never`` starts a new one beside it.

    Raises:
        RunError: the folder holds something else, a file in it is damaged, or another process drives a search in it.
        VersionError: a newer engine has written it.
    """

    def __init__(self, sweep: Sweep, base: Recipe, run_dir: Path | None, resume: Resume) -> None:
        content = _content(sweep, base)
        self.path = folder_of(sweep, base, run_dir, resume)
        is_new = not os.path.lexists(self.path / _CONTENT)
        if is_new and any(not name.startswith(".") for name in names_in(self.path)):
            raise RunError(f"{self.path}: holds files but no {_CONTENT}, so it is no search; give another --run-dir")
        if not is_new:
            self._check_same(content)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._lock: IO[str] = hold(self.path, "searching")
        try:
            self._check_no_links()
            remove_unfinished(self.path)
            versioned = {"version": SWEEP_VERSION, **content}
            replace_file(self.path / _CONTENT, (json.dumps(versioned, indent=2) + "\n").encode())
            self.trials = read_trials(self.path / _LOG, sweep)
            self._remove_scratch()
        except BaseException:
            release(self._lock)
            raise

    def _check_same(self, content: dict[str, Any]) -> None:
        path = self.path / _CONTENT
        values = read_json(path, RunError, follow_links=False, advice=_ADVICE)
        values = without_version(values, SWEEP_VERSION, path, RunError)
        found = checked(values, _CONTENT_SHAPE, path, RunError, advice=_ADVICE)
        earlier: dict[str, Any] = {**found}
        if earlier != content:
            changed = sorted(name for name in {**content, **earlier} if earlier.get(name) != content.get(name))
            raise RunError(
                f"{self.path}: holds another search (other {', '.join(changed)}); give another --run-dir, or --resume "
                "never to start a new one beside it"
            )

    def _check_no_links(self) -> None:
        """Refuse folders of trials that lie elsewhere: what would be written into them is not theirs."""
        trials = self.path / _TRIALS
        if not os.path.lexists(trials):
            return
        with naming(trials, RunError, "remove it, or give another --run-dir"), os.scandir(trials) as entries:
            names = [each for each in entries if re.fullmatch(r"trial-\d+(-from-epoch-\d+)?", each.name)]
            wrong = next((each.path for each in names if not each.is_dir(follow_symlinks=False)), None)
        if trials.is_symlink() or wrong is not None:
            raise RunError(
                f"{wrong or trials}: is no folder, or a symbolic link to one; remove it, or give another --run-dir"
            )

    @property
    def scratch(self) -> Path:
        """Where Ray Tune keeps what nobody needs again; it is removed with `close`, or by the next start."""
        return self.path / _SCRATCH

    def _remove_scratch(self) -> None:
        if self.scratch.is_symlink():
            self.scratch.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def run_dir(self, trial: Trial) -> Path:
        """Return the run folder of a trial."""
        return self.path / _TRIALS / trial.name

    def note(self, trial: Trial) -> None:
        """Keep what is known of a trial; it is on the disk when this returns."""
        self.trials[trial.number] = trial
        append_trial(self.path / _LOG, trial)

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
        self._remove_scratch()
        release(self._lock)


def _content(sweep: Sweep, base: Recipe) -> dict[str, Any]:
    # The number of trials may grow from one start to the next, but not that of a population.
    told = ["fields", "against", "searcher", "scheduler", "grace_epochs", "reduction_factor", "seed"]
    if sweep.scheduler == "pbt":
        told += ["num_samples", "perturb_every_epochs"]
    values = {"metric": sweep.judged_by, **{name: getattr(sweep, name) for name in told}}
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

"""Is what becomes of a trial noted for what it is, and does a full disk cost no search its end? Ray is not started."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from engine.errors import (
    DataError,
    EngineError,
    FolderHeld,
    LearnerError,
    LearnerLost,
    NotWritten,
    OwnFileChanged,
    PlanError,
    RecipeError,
    RunError,
)
from engine.recipes import Plan
from engine.runtimes.ray.bundles import IN_TIME
from engine.search import Sweep, Trial
from engine.search.folder import SweepFolder
from engine.search.trainable import EPOCH
from engine.search.tuning import run_trials, silenced
from engine.search.watching import Watcher

ACCURACY = "validation/accuracy"
WEIGHTS = {"method.reconstruction_weight": tune.loguniform(0.1, 10.0)}
SETTINGS = {"method.reconstruction_weight": 1.0, "method.num_segments": 2}


class Watched:
    """A search of trials of two epochs, of which Ray Tune runs one, and what is told of it."""

    def __init__(self, sweep: Sweep, path: Path) -> None:
        self.told: list[str] = []
        self.folder = SweepFolder(sweep, sweep.base(), path, "auto")
        self.trial = self.folder.trials.setdefault(0, Trial(0, SETTINGS, "running"))
        self.again: list[Trial] = []
        stub: Any = SimpleNamespace
        console = stub(message=self.told.append, show=lambda *_: None)
        plan, stop = Plan(executor="process"), stub(requested=False)
        self.watcher = Watcher(sweep, sweep.base(), plan, stub(), self.folder, console, stop, False)
        self.watcher._queue = stub(of_tune={"t0": self.trial}, try_again=self.again.append)
        self.of_tune = stub(trial_id="t0", error_file=str(path / "error.txt"))

    def reports(self, epoch: int, *, done: bool = False) -> None:
        self.watcher.on_trial_result(0, [], self.of_tune, {EPOCH: epoch, ACCURACY: 0.5, "done": done})

    def ends(self) -> None:
        self.watcher.on_trial_complete(0, [], self.of_tune)

    def raises(self, error: Exception) -> None:
        try:
            raise error
        except Exception:
            Path(self.of_tune.error_file).write_text(traceback.format_exc())
        self.watcher.on_trial_error(0, [], self.of_tune)


@pytest.fixture
def watched(make_sweep: Callable[..., Sweep], tmp_path: Path) -> Callable[..., Watched]:
    """A function: a search with these changes."""
    return lambda **changes: Watched(make_sweep(fields=("epochs=2",), **changes), tmp_path / "s")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotWritten("log.txt: the disk is full"), "log.txt: the disk is full"),
        (FolderHeld("trial-0000: another process is training in it"), "another process is training"),
        (OwnFileChanged("net.py: is another file on b"), "net.py: is another file on b"),
        (LearnerError("segment0", f"did not start {IN_TIME}120; raise it"), "segment0: did not start within"),
        (PlanError(f"the cluster did not free 2 actors {IN_TIME}120: wait"), "did not free 2 actors"),
    ],
)
def test_what_says_nothing_of_its_settings_leaves_a_trial_to_the_next_start(
    watched: Callable[..., Watched], error: EngineError, said: str
) -> None:
    search = watched()
    search.raises(error)
    assert search.trial.status == "lost" and said in (search.trial.error or "")
    assert search.again == []
    assert search.told[-1] == f"trial-0000 was lost: {search.trial.error}; it is left to the next start"


@pytest.mark.parametrize(("space", "kind"), [(WEIGHTS, DataError), ({"data.train_limit": [500, 5]}, RecipeError)])
def test_images_that_are_away_are_no_fault_of_settings_that_do_not_concern_them(
    watched: Callable[..., Watched], space: dict[str, Any], kind: type[Exception]
) -> None:
    def factory(settings: Any) -> Any:
        raise DataError("the images are not there")

    search = watched(
        space={name: tune.choice(each) if isinstance(each, list) else each for name, each in space.items()}
    )
    search.watcher._needs = SimpleNamespace(factory=factory)  # type: ignore[assignment]
    with pytest.raises(kind, match="the images are not there"):
        search.watcher.configuration(search.trial)


def test_other_errors_are_what_they_were(watched: Callable[..., Watched]) -> None:
    search = watched()
    search.raises(LearnerLost("segment0", "its process 7 died"))
    assert search.trial.status == "lost" and search.again == [search.trial]
    search.trial.status = "running"
    search.raises(RunError("a checkpoint is damaged"))
    assert (search.trial.status, search.trial.error) == ("failed", "a checkpoint is damaged")


@pytest.mark.parametrize("scheduler", ["none", "asha"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_trial_that_nobody_has_stopped_and_that_has_not_finished_here_is_no_pruned_one(
    watched: Callable[..., Watched], scheduler: str, epochs: int
) -> None:
    """As one whose run folder is on the disk of another node."""
    search = watched(scheduler=scheduler)
    search.reports(epochs)
    search.ends()
    assert search.trial.status == "lost" and "trials/trial-0000" in (search.trial.error or "")
    assert "it is left to the next start" in search.told[-1]


def test_a_trial_that_the_scheduler_has_stopped_is_a_pruned_one(watched: Callable[..., Watched]) -> None:
    search = watched(scheduler="asha")
    search.reports(1, done=True)
    search.ends()
    assert search.trial.status == "pruned"
    assert search.told == [f"trial-0000 stopped after 1 of 2 epochs: {ACCURACY} 50.00 %"]


@pytest.mark.parametrize(("epochs", "status"), [(1, "waiting"), (2, "lost")])
def test_a_member_of_a_population_pauses_before_its_end(
    watched: Callable[..., Watched], epochs: int, status: str
) -> None:
    search = watched(scheduler="pbt", num_samples=2, space=WEIGHTS)
    search.reports(epochs)
    search.ends()
    assert search.trial.status == status


def test_a_full_disk_under_ray_tune_is_named(
    watched: Callable[..., Watched], make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    search = watched()
    failure: list[OSError] = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    def fit() -> None:
        raise failure[0]

    monkeypatch.setattr("engine.search.tuning.tune.Tuner", lambda *_, **__: SimpleNamespace(fit=fit))

    def run() -> None:
        queue: Any = SimpleNamespace(is_empty=False)
        needs: Any = None
        run_trials(make_sweep(scheduler="none"), needs, search.watcher, queue, search.folder, None)

    with pytest.raises(NotWritten, match=f"^{search.folder.path}: the disk is full"):
        run()
    failure[0] = OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "result.json"))
    with pytest.raises(NotWritten, match=f"^{tmp_path}/result.json: could not be written"):
        run()
    # Of Ray, and nothing of a disk.
    failure[0] = TimeoutError("no answer")
    with pytest.raises(TimeoutError):
        run()


def test_what_ray_tune_says_may_get_lost() -> None:
    with silenced(Path("/dev/full")):
        print("from Ray Tune")
    with pytest.raises(KeyError), silenced(Path("/dev/full")):
        print("from Ray Tune")
        raise KeyError

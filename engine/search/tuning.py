"""Ray Tune, run in silence."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from engine.atomic import open_appending, write_error
from engine.errors import EngineError
from engine.search.definition import Sweep
from engine.search.folder import SweepFolder
from engine.search.generations import PopulationQueue
from engine.search.halving import Halving
from engine.search.needs import Needs
from engine.search.searcher import TrialQueue
from engine.search.trainable import EPOCH, run_trial
from engine.search.watching import Watcher

_TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    # What Ctrl-C means is said by `Stop`, as for the other signals.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def run_trials(
    definition: Sweep,
    needs: Needs,
    watcher: Watcher,
    queue: TrialQueue | PopulationQueue,
    folder: SweepFolder,
    max_concurrent: int | None,
) -> None:
    """Run all trials that are left to do; what becomes of them the watcher notes.

    Raises:
        Interrupted: a signal has come; trials may still run, and end with Ray.
        EngineError: the folder cannot be written to, or a trial not be read.
    """
    if queue.is_empty:
        return
    scheduler: Any = FIFOScheduler()
    if definition.scheduler == "asha":
        scheduler = Halving(
            queue.of_tune,
            time_attr=EPOCH,
            metric=definition.judged_by,
            mode=definition.mode,
            # A trial that was trained to its end is not stopped.
            max_t=needs.epochs + 1,
            grace_period=definition.grace_epochs,
            reduction_factor=definition.reduction_factor,
        )
    tuner = tune.Tuner(
        tune.with_resources(run_trial, lambda config: needs.factory(config["settings"])),
        tune_config=tune.TuneConfig(
            # With ASHA the metric is given to the scheduler, which does not take it twice.
            metric=None if definition.scheduler == "asha" else definition.judged_by,
            mode=None if definition.scheduler == "asha" else definition.mode,
            search_alg=queue,
            scheduler=scheduler,
            # The queue decides itself when it has come to its end: a trial that is tried again is one more to Tune.
            num_samples=-1,
            max_concurrent_trials=max_concurrent,
            # Members take turns, and what their processes have imported need not be imported again.
            reuse_actors=definition.scheduler == "pbt",
        ),
        run_config=tune.RunConfig(
            name="tune",
            # A search goes on from its list of trials; what Ray Tune keeps of its own is not needed again.
            storage_path=str(folder.scratch),
            # Otherwise the path is taken apart like a URI.
            storage_filesystem=LocalFileSystem(),
            verbose=0,
            callbacks=[watcher],
            log_to_file=False,
        ),
    )
    # Ray Tune leaves its handler behind.
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with silenced(folder.path / "tune.txt"):
            tuner.fit()
    except tune.TuneError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, EngineError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        raise
    except OSError as error:
        # Also Ray says so that it does not answer.
        if isinstance(error, (ConnectionError, TimeoutError)):
            raise
        raise write_error(Path(os.fsdecode(error.filename or folder.path)), error) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, before)
    if watcher.unreadable is not None:
        raise watcher.unreadable


@contextlib.contextmanager
def silenced(log: Path) -> Iterator[None]:
    """Let what Ray Tune prints and logs go to a file: the console tells what there is to tell."""
    before = {name: os.environ.get(name) for name in _TUNE_SETTINGS}
    os.environ.update(_TUNE_SETTINGS)
    # It has the standard error of before the redirection.
    logger = logging.getLogger("ray.tune")
    propagated = logger.propagate
    try:
        try:
            opened = open_appending(log)
        except OSError as error:
            raise write_error(log, error) from error
        try:
            with contextlib.redirect_stdout(opened), contextlib.redirect_stderr(opened):
                handler = logging.StreamHandler(opened)
                logger.addHandler(handler)
                logger.propagate = False
                try:
                    yield
                finally:
                    logger.removeHandler(handler)
        finally:
            # A disk that does not take the rest of what Ray Tune says is no reason to end a search.
            with contextlib.suppress(OSError):
                opened.close()
    finally:
        logger.propagate = propagated
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

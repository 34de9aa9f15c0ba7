"""The checkpoint from which a run goes on, and whether it is one of the same run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from engine.checkpoints import Checkpoint, newest_checkpoint
from engine.data import Facts
from engine.errors import NotWritten, RunError
from engine.recipes import Recipe, recipe_identity
from engine.training.finished import check_images
from engine.training.run_record import RunRecord


def newest_of_run(
    folder: Path, recipe: Recipe, facts: Facts, learners: Collection[str] | None, say: Callable[[str], None]
) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run; None where there is none yet.

    Args:
        folder: of the checkpoints.
        recipe: that is trained.
        facts: of the images that are there now.
        learners: names of the team; any are taken if None.
        say: told which damaged checkpoints are passed over, and why.

    Raises:
        RunError: it belongs to another recipe, or was trained on other images.
    """
    checkpoint, skipped = newest_checkpoint(folder, learners)
    for line in skipped:
        say(line)
    if checkpoint is None:
        return None
    if checkpoint.values["recipe"] != recipe_identity(recipe):
        raise RunError(
            f"{checkpoint.path}: belongs to another recipe than {folder.parent / 'recipe.json'}; move it away, or give "
            "another --run-dir"
        )
    check_images(checkpoint, recipe, facts)
    return checkpoint


def wait_for_newest(
    folder: Path,
    recipe: Recipe,
    facts: Facts,
    learners: Collection[str],
    record: RunRecord,
) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run, as `newest_of_run`, from a disk that may be away for a while.

    Args:
        folder: of the checkpoints.
        recipe: that is trained.
        facts: of the images that are there now.
        learners: names of the team.
        record: of the run, which has patience with the disk.

    Raises:
        RunError: as `newest_of_run`, or patience is at an end.
    """
    found: list[Checkpoint | None] = []

    def read() -> None:
        try:
            found[:] = [newest_of_run(folder, recipe, facts, learners, record.say)]
        except OSError as error:
            raise NotWritten(f"{folder}: could not be read: {error.strerror or error}") from error

    record.patience.wait_for(folder.name, read)
    return found[0]

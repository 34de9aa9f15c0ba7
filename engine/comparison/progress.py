"""Progress of a comparison: which runs have finished, which failed, and what is told of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.comparison.runs import Job
from engine.data import Facts
from engine.errors import InputError, RunError
from engine.tasks import Metric
from engine.tracking import Console, format_score, format_seconds
from engine.tracking.scores import words_of
from engine.training.environment import changed_since, files_changed_since
from engine.training.finished import finished_result
from engine.training.folder import choose_folder
from engine.training.result import Result


class Progress:
    """What is known of the runs of a comparison, told as it becomes known.

    Args:
        jobs: all runs; those that are finished already are told in one line.
        facts: of the images that are there now, by the label of the recipe.
        headline: the score by which runs are judged.
        console: told of each run.

    Attributes:
        unfinished: the runs that are still to be trained.

    Raises:
        RunError: a folder holds the run of another recipe, or one that was trained on other images.
    """

    def __init__(self, jobs: Sequence[Job], facts: Mapping[str, Facts], headline: Metric, console: Console) -> None:
        self._jobs, self._facts, self._headline, self._console = jobs, facts, headline, console
        self._causes: dict[Path, str] = {}
        found = {job.run_dir: self._finished(job) for job in jobs}
        self._results = {run_dir: result for run_dir, result in found.items() if result is not None}
        self.unfinished = [job for job in jobs if job.run_dir not in self._results]
        self._ended = len(self._results)
        if self._results:
            told = f"{self._ended} of {len(jobs)} runs are finished already"
            finished = [job for job in jobs if job.run_dir in self._results]
            # Runs that are still to be trained would be compared with others of another version or machine.
            differences = changed_since if self.unfinished else files_changed_since
            since = {change for job in finished for change in differences(job.run_dir, job.recipe)}
            if since:
                told += f"; --resume never starts a new comparison; since then {', '.join(sorted(since))}"
            console.message(told)

    def started(self, job: Job) -> None:
        """Tell that a run starts."""
        self._console.message(f"{self._ended}/{len(self._jobs)}  {_name(job)} starts; its log is {job.run_dir}/log.txt")

    def ended(self, job: Job, cause: str | None) -> None:
        """Tell that a run has ended: with its result, or why it failed."""
        self._ended += 1
        place = f"{self._ended}/{len(self._jobs)}  {_name(job)}"
        if cause is not None:
            self._causes[job.run_dir] = cause
            self._console.message(f"{place} failed: {cause}")
            return
        result = self._finished(job)
        if result is None:
            self._causes[job.run_dir] = f"{job.run_dir}: its result could not be read again"
            self._console.message(f"{place} failed: {self._causes[job.run_dir]}")
            return
        self._results[job.run_dir] = result
        score = "unknown" if result.test_score is None else format_score(self._headline, result.test_score)
        words = f"test {words_of(self._headline)} {score}, {format_seconds(result.seconds)}"
        self._console.message(f"{place} finished: {words}")

    def results(self, label: str) -> dict[int, Result]:
        """Return the results of a recipe's finished runs by seed."""
        return {
            job.recipe.seed: self._results[job.run_dir]
            for job in self._jobs
            if job.label == label and job.run_dir in self._results
        }

    def failures(self, label: str) -> dict[int, str]:
        """Return why other runs of a recipe failed, by seed."""
        return {
            job.recipe.seed: self._causes[job.run_dir]
            for job in self._jobs
            if job.label == label and job.run_dir in self._causes
        }

    def _finished(self, job: Job) -> Result | None:
        try:
            # Refuses a folder with the run of another recipe, or on other images.
            folder = choose_folder(job.recipe, job.run_dir, "auto")
            return finished_result(folder, job.recipe, self._console.message, self._facts[job.label])
        except RunError as error:
            raise of_recipe(_name(job), error) from error


def _name(job: Job) -> str:
    return f"{job.label}, seed {job.recipe.seed}"


def of_recipe(label: str, error: InputError) -> InputError:
    """Return an error each of whose lines begins with the recipe's label."""
    return type(error)("\n".join(f"{label}: {line}" for line in str(error).splitlines()))

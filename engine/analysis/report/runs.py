"""One run on the page: how it ended, its scores, curves, costs, faults and recipe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.analysis.report.elements import as_text, folded, heading, notice, pairs, picture, table
from engine.errors import RunError
from engine.reading import read_json
from engine.recipes import Recipe, load_recipe, recipe_to_dict
from engine.recipes.overrides import dotted_fields
from engine.tasks import Metric, headline_of
from engine.tracking import (
    ENSEMBLE,
    Record,
    format_bytes,
    format_score,
    format_seconds,
    format_share,
    plot_curves,
    read_metrics,
    spared,
)
from engine.tracking.scores import score_in_words, words_of
from engine.tracking.tables import format_rate
from engine.training import Result
from engine.training.environment import ENVIRONMENT
from engine.training.folder import SUMMARY

_MAIN_FIELDS = (
    *("name", "task.kind", "method.kind", "method.num_segments", "method.cuts", "backbone.name", "data.name"),
    *("data.train_limit", "data.batch_size", "epochs", "optimizer.kind", "optimizer.learning_rate", "schedule.kind"),
    *("seed", "numerics.precision"),
)
_NO_SUMMARY = f"not ended: there is no {SUMMARY}, which is written when a training ends or is interrupted"


@dataclass(frozen=True)
class ReportedRun:
    """What is known of a run, as far as it can be read.

    Attributes:
        label: unique on the page.
        path: of its folder.
        recipe: what was trained.
        headline: the score by which it is judged.
        result: what its summary says; None where there is none that can be read.
        records: all that was measured, in order.
        problems: what could not be read, and why.
    """

    label: str
    path: Path
    recipe: Recipe
    headline: Metric
    result: Result | None
    records: Sequence[Record]
    problems: Sequence[str]

    @property
    def status(self) -> str:
        """How it ended."""
        return _NO_SUMMARY if self.result is None else self.result.status

    @property
    def score(self) -> str:
        """The headline score on test images, in words."""
        if self.result is None or self.result.test_score is None:
            return "-"
        return f"{words_of(self.headline)} {format_score(self.headline, self.result.test_score)}"

    @property
    def reached(self) -> tuple[int, int]:
        """Epoch and step of the last record."""
        last = max(self.records, key=lambda record: record.step, default=None)
        return (0, 0) if last is None else (last.epoch, last.step)


def read_run(path: Path, label: str) -> ReportedRun:
    """Return what a run folder says; no checkpoint and no image is read.

    Raises:
        RecipeError, RunError, VersionError: its recipe cannot be read, or a newer engine has written its summary.
    """
    recipe = load_recipe(path / "recipe.json")
    records, result, problems = list[Record](), None, list[str]()
    try:
        records = read_metrics(path)
    except RunError as error:
        problems.append(str(error))
    if os.path.lexists(path / SUMMARY):
        try:
            result = Result.from_json(read_json(path / SUMMARY, RunError, follow_links=False), path)
        except RunError as error:
            problems.append(str(error))
    return ReportedRun(label, path, recipe, headline_of(recipe), result, records, problems)


def overview(runs: Sequence[ReportedRun], anchors: Sequence[str]) -> str:
    """Return a table with a line for each run, which leads to what is said of it below."""
    rows = []
    for run, anchor in zip(runs, anchors, strict=True):
        result = run.result
        known = ["-"] * 4
        if result is not None:
            rate, peak = result.images_per_second, max(result.peak_memory_bytes.values(), default=None)
            known = [
                f"{result.epochs:,}",
                "-" if rate is None else format_rate(rate),
                "-" if peak is None else format_bytes(peak),
                format_seconds(result.seconds),
            ]
        link = f'<a href="#{as_text(anchor)}">{as_text(run.label)}</a>'
        ended = "not ended" if result is None else result.status
        rows.append([link, *map(as_text, (run.recipe.name, run.recipe.seed, ended, run.score, *known))])
    header = ["run", "recipe", "seed", "status", "test score", "epochs", "images/s", "largest peak memory", "time"]
    return table(header, rows, "Runs")


def run_section(run: ReportedRun) -> str:
    """Return all that is said of a run besides its heading and what was analysed of it."""
    warnings = list(run.problems)
    curves = _curves(run, warnings)
    environment = _environment(run, warnings)
    return "".join(
        [
            f'<p class="faint">{as_text(run.path)}</p>\n',
            notice(warnings),
            heading(3, "Summary"),
            pairs(_summary(run), f"Summary of {run.label}"),
            _scores(run),
            curves,
            _learners(run),
            _disturbances(run),
            heading(3, "Recipe"),
            _recipe(run),
            environment,
        ]
    )


def _summary(run: ReportedRun) -> list[tuple[str, object]]:
    result, (epoch, step) = run.result, run.reached
    if result is None:
        return [("status", run.status), ("last record", f"epoch {epoch:,}, step {step:,}" if step else "none")]
    rows: list[tuple[str, object]] = [
        ("status", result.status),
        ("epochs", f"{result.epochs:,} of {run.recipe.epochs:,}"),
        ("steps", f"{result.steps:,}"),
        (f"test {words_of(run.headline)}", run.score.removeprefix(f"{words_of(run.headline)} ")),
    ]
    if result.images_per_second is not None:
        rows.append(("images/s", format_rate(result.images_per_second)))
    rows.append(("time of the last command", format_seconds(result.seconds)))
    for words, count in (("deployed", result.deployed_parameters), ("trained", result.trained_parameters)):
        if count is not None:
            rows.append((f"{words} parameters", f"{count:,}"))
    return [*rows, ("sha256 of the weights", result.weights_sha256)]


def _scores(run: ReportedRun) -> str:
    """Return the last value of every score, a line for each network and split; nothing where none was measured."""
    last: dict[tuple[str, str], dict[str, float]] = {}
    for record in run.records:
        if record.split != "train":
            last.setdefault((record.learner or "network", record.split), {})[record.name] = record.value
    names = list(dict.fromkeys(name for values in last.values() for name in values))
    if not names:
        return ""
    rows = [
        [
            as_text(f"{network}, {split}"),
            *(as_text(score_in_words(run.headline, name, values[name])) if name in values else "-" for name in names),
        ]
        for (network, split), values in sorted(last.items(), key=lambda item: item[0][0] == ENSEMBLE)
    ]
    header = ["network and split", *(as_text(name.replace("_", " ")) for name in names)]
    return heading(3, "Scores") + table(header, rows, f"Last scores of {run.label}")


def _curves(run: ReportedRun, warnings: list[str]) -> str:
    if not run.records:
        return ""
    with tempfile.TemporaryDirectory() as folder, spared("the picture of the curves", warnings.append):
        path = Path(folder) / "curves.png"
        plot_curves(run.records, path, run.recipe.name, run.headline)
        words = f"Curves of {run.label} over epochs, by learner: scores, losses, learning rate, speed, memory"
        return heading(3, "Curves") + picture(path.read_bytes(), words)
    return ""


def _learners(run: ReportedRun) -> str:
    """Return what training took of each learner: memory, by purpose, and how long it waited."""
    if run.result is None or not (run.result.peak_memory_bytes or run.result.waiting_share):
        return ""
    peaks, parts, waiting = run.result.peak_memory_bytes, run.result.memory_parts, run.result.waiting_share
    purposes = list(dict.fromkeys(purpose for each in parts.values() for purpose in each if purpose != "total"))
    rows = []
    for name in dict.fromkeys([*peaks, *waiting]):
        sizes = [peaks.get(name), *(parts.get(name, {}).get(purpose) for purpose in purposes)]
        cells = ["-" if size is None else format_bytes(size) for size in sizes]
        waited = format_share(waiting[name], 1) if name in waiting else "-"
        rows.append([as_text(cell) for cell in (name, *cells, waited)])
    header = ["learner", "peak memory", *(as_text(purpose.replace("_", " ")) for purpose in purposes), "time waited"]
    return heading(3, "Learners") + table(header, rows, f"Learners of {run.label}")


def _disturbances(run: ReportedRun) -> str:
    """Return faults, absences, learners that have diverged, and warnings; that there were none is said, too."""
    if run.result is None:
        return ""
    result = run.result
    shown = heading(3, "Faults and warnings")
    if result.faults:
        rows = [
            [f"{each.step:,}", as_text(each.cause), f"{each.repeated_steps:,}", format_seconds(each.seconds_lost)]
            for each in result.faults
        ]
        shown += table(["fault after step", "cause", "steps repeated", "time lost"], rows, f"Faults of {run.label}")
    if result.absences:
        rows = [
            [
                as_text(each.network),
                as_text(each.cause),
                str(each.since),
                "-" if each.until is None else str(each.until),
            ]
            for each in result.absences
        ]
        shown += table(["away", "cause", "since step", "until step"], rows, f"Absences of {run.label}")
    left = [f"{learner} has left its cohort: {reason}" for learner, reason in result.diverged.items()]
    shown += notice([*left, *result.warnings])
    if not (result.faults or result.absences or left or result.warnings):
        shown += "<p>None.</p>\n"
    return shown


def _recipe(run: ReportedRun) -> str:
    fields = dotted_fields(recipe_to_dict(run.recipe))
    main = [(name, fields[name]) for name in _MAIN_FIELDS if fields.get(name) is not None]
    whole = pairs(fields.items(), f"All fields of the recipe of {run.label}")
    return pairs(main, f"Main fields of the recipe of {run.label}") + folded(f"All {len(fields)} fields", whole)


def _environment(run: ReportedRun, warnings: list[str]) -> str:
    path = run.path / ENVIRONMENT
    if not os.path.lexists(path):
        return ""
    try:
        values = read_json(path, RunError, follow_links=False)
    except RunError as error:
        warnings.append(str(error))
        return ""
    fields = dotted_fields(values) if isinstance(values, dict) else {"value": values}
    return folded("Where it ran", pairs(fields.items(), f"Environment of {run.label}"))

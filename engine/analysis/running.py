"""Runs analyses over runs: opens them, measures part by part, here or on Ray, and writes what was found."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.analysis.analysis import Analysis, Measured
from engine.analysis.names import distinct_ends, folder_together, shortened
from engine.analysis.opened import OpenedRun, Settings
from engine.analysis.parts import KeptParts, Part
from engine.analysis.pixels import PIXELS
from engine.analysis.registry import ANALYSES
from engine.analysis.report.writing import REPORT
from engine.analysis.results import Finding, earlier_caption, write_finding
from engine.errors import InputError, RunError
from engine.learners import numerics_applied
from engine.paths import absolute, check_writable
from engine.recipes import Plan, nearest
from engine.recipes.arguments import check_list

Executor = Literal["process", "ray"]


@dataclass(frozen=True)
class Work:
    """One part that is to be measured, as it is sent to where that is done.

    Attributes:
        analysis: its name.
        run: which of the runs that are analysed, counted from 0.
        checkpoint: its folder: a training that goes on meanwhile writes newer ones.
        settings: on what is looked.
        network: of the run.
        part: of the network.
    """

    analysis: str
    run: int
    checkpoint: str
    settings: Settings
    network: str
    part: str


def analyse(
    places: Sequence[str | Path],
    names: Sequence[str],
    settings: Settings,
    *,
    on: Executor = "process",
    address: str | None = None,
    to: str | Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Finding]:
    """Analyse runs, each by itself, and several together, and write what is found.

    Args:
        places: run folders, or checkpoints in them.
        names: of `engine.analysis.ANALYSES`.
        settings: on what is looked.
        on: ``process`` measures one part after the other; ``ray`` each as a task of its own, to the same numbers.
        address: of a Ray cluster whose nodes see the run folders; a private Ray unless given.
        to: folder for what is found out of several runs together, in which each analysis makes one of its own; in the
            first run's folder unless given.
        tell: told what is measured, and what was left out.

    Raises:
        InputError: there is no such analysis, or it has no meaning for one of the runs; before anything is measured.
    """
    check_list("places", places, RunError)
    check_list("names", names, InputError)
    chosen = _chosen(names)
    if settings.data_root is not None and "://" not in settings.data_root:
        # A task on Ray works in another folder.
        settings = dataclasses.replace(settings, data_root=str(absolute(settings.data_root, "--data-root")))
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(OpenedRun(place, settings)) for place in places]
        _check(chosen, runs)
        beside = folder_together(runs[0].folder, len(runs), to)
        for folder in {opened.folder for opened in runs} | {beside}:
            for analysis in chosen:
                check_writable(folder / analysis.name, "--to" if to is not None and folder == beside else "RUN")
        for opened in runs:
            for line in opened.run.checkpoint.skipped:
                tell(line)
            for learner, reason in opened.run.diverged.items():
                tell(f"{opened.run.path}: {learner} has left its cohort ({reason}), and its network is left out")
        findings = []
        with _measuring(on, address) as measure:
            for analysis in chosen:
                findings += _analysed(analysis, runs, beside, measure, tell)
        return findings


def _chosen(names: Sequence[str]) -> list[Analysis]:
    for name in names:
        if name not in ANALYSES:
            raise InputError(
                f"--of {name or repr(name)}: there is no such analysis{nearest(name, [*ANALYSES, REPORT])}"
            )
    return [analysis for name, analysis in ANALYSES.items() if name in names]


def _check(chosen: Sequence[Analysis], runs: Sequence[OpenedRun]) -> None:
    for opened in runs:
        if not opened.networks:
            raise RunError(
                f"{opened.run.checkpoint.path}: every peer had left its cohort at this checkpoint, so no network is "
                "left to be analysed; give an earlier one, RUN/checkpoints/step-..., or train anew"
            )
    problems = [
        f"--of {analysis.name} has no meaning for {opened.run.path}: {reason}; leave one of them out"
        for analysis in chosen
        for opened in runs
        if (reason := analysis.refusal(opened)) is not None
    ]
    if problems:
        raise InputError("\n".join(problems))
    places = [opened.run.checkpoint.path.resolve() for opened in runs]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"RUN {twice}: is given twice, a run folder meaning its newest checkpoint; give it once")
    for analysis in chosen:
        if analysis.compares and sum(len(analysis.parts(each, name)) for each in runs for name in each.networks) < 2:
            left = " left" if runs[0].run.diverged else ""
            raise InputError(
                f"--of {analysis.name} compares networks or segments, but {runs[0].run.path} has one network{left}, "
                "which is not cut; give another run, too"
            )
    other = next((opened for opened in runs if opened.images_sha256 != runs[0].images_sha256), None)
    if other is not None:
        raise RunError(
            f"{other.run.path}: has other images in {other.settings.split} than {runs[0].run.path}, so nothing can be "
            "compared on them; give runs of one data set, or analyse them one by one"
        )
    for analysis in chosen:
        reason = analysis.refusal_together(runs)
        if reason is not None:
            raise InputError(f"--of {analysis.name}: {reason}")


Measure = Callable[[Sequence[tuple[Work, OpenedRun]]], Iterator[tuple[Work, Part]]]


@contextlib.contextmanager
def _measuring(on: Executor, address: str | None) -> Iterator[Measure]:
    """Give what measures parts: it yields each with its work as soon as it is there, in any order."""
    if on == "process":
        yield lambda works: ((work, _measured(work, opened)) for work, opened in works)
        return
    # Only here, because Ray takes seconds to import.
    from engine.runtimes.ray.tasks import RayTasks

    with RayTasks(Plan(address=address)) as tasks:
        yield lambda works: tasks.run(measured_there, [work for work, _ in works])


def _measured(work: Work, opened: OpenedRun) -> Part:
    with numerics_applied(opened.numerics):
        arrays = ANALYSES[work.analysis].measure(opened, work.network, work.part)
    return Part(arrays, opened.device.type)


def measured_there(work: Work) -> Part:
    """Return what is measured of a part, in a process that has nothing open."""
    with OpenedRun(work.checkpoint, work.settings) as opened:
        return _measured(work, opened)


def _analysed(
    analysis: Analysis, runs: Sequence[OpenedRun], beside: Path, measure: Measure, tell: Callable[[str], None]
) -> list[Finding]:
    """Measure what is not there yet of one analysis, and write what follows for each run and for all together."""
    found: dict[tuple[int, str, str], Part] = {}
    kept = [KeptParts(analysis, opened) for opened in runs]
    missing: list[tuple[Work, OpenedRun]] = []
    labels = _labels(runs)
    wanted = [[(name, part) for name in each.networks for part in analysis.parts(each, name)] for each in runs]
    for run, opened in enumerate(runs):
        for network, part in wanted[run]:
            there = kept[run].get(network, part)
            if there is not None:
                found[run, network, part] = there
            else:
                checkpoint = str(opened.run.checkpoint.path)
                missing.append((Work(analysis.name, run, checkpoint, opened.settings, network, part), opened))
    for number, (work, measured) in enumerate(measure(missing), start=1):
        kept[work.run].put(work.network, work.part, measured)
        found[work.run, work.network, work.part] = measured
        where = " ".join(filter(None, (labels[work.run], work.network, work.part)))
        tell(f"{analysis.name}: {where}: measured, {number} of {len(missing)}")
    called = {
        (run, network): _named(labels[run], network, opened, len(runs))
        for run, opened in enumerate(runs)
        for network in opened.networks
    }
    short = dict(zip(called, shortened(list(called.values())), strict=True))
    names = [tuple(opened.run.facts.class_names) for opened in runs]
    findings, together, devices = [], list[Measured](), list[str]()
    for run, opened in enumerate(runs):
        kept[run].remove_others()
        own = [
            Measured(
                labels[run],
                network,
                called[run, network],
                short[run, network],
                part,
                found[run, network, part].arrays,
                names[run],
            )
            for network, part in wanted[run]
        ]
        devices.append(", ".join(sorted({found[run, network, part].device for network, part in wanted[run]})))
        together += own
        if analysis.compares and len(own) < 2:
            tell(f"{analysis.name}: {opened.run.path}: has nothing in it to be compared; only the runs together are")
            continue
        findings.append(_written(analysis, own, opened.folder / analysis.name, [opened], devices[-1:], tell))
    if len(runs) > 1:
        findings.append(_written(analysis, together, beside / analysis.name, runs, devices, tell))
    return findings


def _written(
    analysis: Analysis,
    found: Sequence[Measured],
    folder: Path,
    runs: Sequence[OpenedRun],
    devices: Sequence[str],
    tell: Callable[[str], None],
) -> Finding:
    about, earlier = _about(analysis, runs, devices), earlier_caption(folder)
    about["caption"] = "; ".join(filter(None, (about["caption"], analysis.remark(found))))
    if earlier not in (None, about["caption"]):
        tell(f"{analysis.name}: {folder}: replaces what was found of {earlier}")
    return write_finding(analysis, found, folder, about)


def _labels(runs: Sequence[OpenedRun]) -> list[str]:
    """Return the runs' folder names, with those above where two are called alike; of checkpoints with the step."""
    labels = distinct_ends([opened.run.path for opened in runs])
    return [
        f"{label} step {opened.run.checkpoint.step}" if labels.count(label) > 1 else label
        for label, opened in zip(labels, runs, strict=True)
    ]


def _named(label: str, network: str, opened: OpenedRun, runs: int) -> str:
    if len(opened.networks) == 1:
        return label
    return network if runs == 1 else f"{label} {network}"


def _about(analysis: Analysis, runs: Sequence[OpenedRun], devices: Sequence[str]) -> dict[str, Any]:
    settings, count = runs[0].settings, len(runs[0].places)
    chosen = f"{count:,} images of {settings.split}, drawn with seed {settings.seed}"
    if settings.positions is not None:
        chosen = f"images {', '.join(map(str, settings.positions))} of {settings.split}, seed {settings.seed}"
    if runs[0].run.facts.label_maps:
        chosen += f"; {PIXELS} labelled pixels of each"
    steps = ", ".join(
        f"{label} after step {opened.run.checkpoint.step:,}" for label, opened in zip(_labels(runs), runs, strict=True)
    )
    return {
        "caption": f"{steps}; {chosen}" if analysis.looks_at_images else steps,
        "split": settings.split,
        "images": count,
        "seed": settings.seed,
        "images_sha256": runs[0].images_sha256,
        "runs": [
            {
                "run": label,
                "path": str(opened.run.path),
                "recipe": opened.run.recipe.name,
                "step": opened.run.checkpoint.step,
                "checkpoint_sha256": opened.checkpoint_sha256,
                "device": device,
            }
            for label, opened, device in zip(_labels(runs), runs, devices, strict=True)
        ],
    }

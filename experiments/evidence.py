"""Runs a study of what the papers claim, and writes what it found into its pages of results.

    python -m experiments.evidence digits
    python -m experiments.evidence sub_networks --root DIR
    python -m experiments.evidence digits --part 1/2      # and --part 2/2 beside it, or on another machine

A study trains its arms, which are shipped recipes with another budget, with the same seeds. Runs lie in
`runs/evidence`; interrupted, the same command goes on where it was and repeats no finished run. Where each arm has its
own best learning rate, held-out images choose it, with seeds that are no part of the result. Parts share nothing: once
all are trained (and their folders lie in one place), the command without --part writes the pages. Studies may run at
once: a run that both need is trained by one, and waited for by the other. A trial with fewer seeds than a page shows is
refused.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.comparison.cost import training_flops_per_image
from engine.comparison.picture import plot_compared
from engine.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, EngineError
from engine.tasks import ACCURACY
from experiments.studies import STUDIES
from experiments.studies.pages import how, machines_of, shown_seeds, write_parts
from experiments.studies.study import Study
from experiments.studies.tables import arms_table, claims_table, failures_list
from experiments.studies.training import Trained, Trainer, check_images

PROJECT = Path(__file__).resolve().parents[1]
PAGES, FIGURES = PROJECT / "docs" / "results", PROJECT / "experiments" / "figures"
FOLDER = Path("runs") / "evidence"


def parts_of(
    study: Study, trained: Mapping[str, Trained], seeds: Sequence[int], root: str | None, figures: Path
) -> dict[str, str]:
    """Return what a study found as Markdown by the name of the part, and draw its pictures.

    An arm of which every run failed has no line, but its failures are listed, and there is no verdict on its claims.

    Args:
        study: whose arms were trained.
        trained: all of them, on the same images for each seed.
        seeds: with which.
        root: folder with the images, where the study needs one.
        figures: the folder of the pictures.

    Raises:
        RunError: every run of the baseline failed, or of an arm that a further part needs, or a run does not say on
            what machine it was trained, or runs of a seed were trained on different images.
    """
    check_images(trained.values())
    rows, choices = [], {label: arm.choice for label, arm in trained.items()}
    for label, arm in trained.items():
        if not arm.results and label != study.baseline and study.further is None:
            continue
        recipe, _ = study.job(label, seeds[0], arm.choice.learning_rate, root)
        rows.append(arm.compared(training_flops_per_image(recipe)))
    tables = [arms_table(rows, {label: choice.learning_rate for label, choice in choices.items()})]
    if failures := failures_list({label: arm.failures for label, arm in trained.items()}, choices):
        tables.append(failures)
    plot_compared(rows, seeds, ACCURACY, figures / f"evidence_{study.name}.png", f"Evidence: {study.name}")
    machines = machines_of(result.run_dir for arm in trained.values() for result in arm.results.values())
    parts = {study.name: "\n\n".join(tables), f"{study.name}/how": how(study, seeds, choices, machines)}
    if study.claims:
        parts[f"{study.name}/claims"] = claims_table(study.claims, rows)
    if study.further is not None:
        further = study.further({label: arm.results for label, arm in trained.items()}, figures)
        parts |= {f"{study.name}/{name}": part for name, part in further.items()}
    return parts


def run(
    study: Study, seeds: Sequence[int], root: str | None, part: tuple[int, int], folder: Path
) -> dict[str, Trained]:
    """Train a part of a study, or return what it came to: its arms by label.

    Args:
        study: what to train.
        seeds: for the result.
        root: folder with the images, where the study needs one.
        part: which one, and of how many; (1, 1) is all.
        folder: below which the runs lie.

    Raises:
        EngineError: the input cannot be used, an arm fails with every learning rate, or a run failed otherwise than by
            diverging.
    """
    trainer = Trainer(study, root, folder)
    return trainer.train(trainer.choose_rates(study.part(*part)), seeds)


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("--root", metavar="DIR", help="folder with the images, for studies that need one")
    parser.add_argument("--seeds", metavar="S,S", help="those of the study unless given, such as 10,11")
    parser.add_argument("--part", metavar="I/N", default="1/1", help="train this part of the arms alone")
    options = parser.parse_args(words)
    if options.study not in STUDIES:
        parser.error(f"{options.study}: there is no such study; there is {', '.join(STUDIES)}")
    study = STUDIES[options.study]
    if study.needs_images and options.root is None:
        parser.error(f"{study.name} needs images: give --root DIR; {study.about}")
    if not study.needs_images and options.root is not None:
        parser.error(f"--root {options.root}: {study.name} reads no folder; leave it out")
    seeds = _seeds(parser, options.seeds) if options.seeds else study.seeds
    part = _part(parser, options.part, study)
    shown, choosing = shown_seeds(PAGES, study), set(study.choosing_seeds)
    if choosing & set(seeds):
        others = sorted({*seeds, *shown} - choosing) or study.seeds
        parser.error(
            f"--seeds {_joined(seeds)}: {study.name} chooses learning rates with {_joined(study.choosing_seeds)}, "
            f"which are no part of the result; give --seeds {_joined(others)}"
        )
    if part[1] == 1 and not set(shown) <= set(seeds):
        parser.error(
            f"--seeds {_joined(seeds)}: the page of {study.name} shows seeds {_joined(shown)}, which would be lost; "
            f"give --seeds {_joined(sorted({*seeds, *shown}))}"
        )
    try:
        trained = run(study, seeds, options.root, part, FOLDER)
        if part[1] > 1:
            print(f"part {options.part} is trained; once all are, the command without --part writes the pages")
            return EXIT_SUCCESS
        parts = parts_of(study, trained, seeds, options.root, FIGURES)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    written = write_parts(PAGES, parts)
    for name, text in parts.items():
        held_by = ", ".join(map(str, written.get(name, []))) or "no page"
        print(f"\n{text}\n\n{name} stands in {held_by}")
    return EXIT_SUCCESS


def _joined(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))


def _seeds(parser: argparse.ArgumentParser, text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text) or len(set(text.split(","))) < text.count(",") + 1:
        parser.error(f"--seeds {text}: expected different whole numbers with commas between, such as 10,11")
    return tuple(map(int, text.split(",")))


def _part(parser: argparse.ArgumentParser, text: str, study: Study) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        parser.error(f"--part {text}: expected which part of how many, such as 1/2")
    most = len({arm.recipe for arm in study.arms.values()})
    if int(found[2]) > most:
        parser.error(f"--part {text}: {study.name} has {most} recipes, so expected at most {most} parts")
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    sys.exit(main())

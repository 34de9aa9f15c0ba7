"""Writes what a study found into the marked parts of the pages of results."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from engine.atomic import replace_file
from engine.errors import RunError
from engine.reading import checked, read_json
from experiments.studies.study import Study
from experiments.studies.tables import rates_table
from experiments.studies.training import Choice

_PART = re.compile(r"<!-- evidence (\S+) -->\n((?:(?!<!-- evidence ).)*?)<!-- end -->", re.DOTALL)
_WIDTH = 120


def write_parts(folder: Path, parts: Mapping[str, str]) -> dict[str, list[Path]]:
    """Put parts between their marks, `<!-- evidence NAME -->` and `<!-- end -->`, in the pages of a folder.

    Args:
        folder: with the pages.
        parts: Markdown by name; what a page marks and is not among them stays as it is.

    Returns:
        by part the pages that hold it; a part that no page marks is not among them.
    """
    written: dict[str, list[Path]] = {}
    for page in sorted(folder.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        marked = [name for name, _ in _PART.findall(text) if name in parts]
        if marked:
            changed = _PART.sub(lambda found: _filled(found, parts), text)
            if changed != text:
                replace_file(page, changed.encode())
            for name in dict.fromkeys(marked):
                written.setdefault(name, []).append(page)
    return written


def _filled(found: re.Match[str], parts: Mapping[str, str]) -> str:
    name = found[1]
    return f"<!-- evidence {name} -->\n\n{parts[name].strip()}\n\n<!-- end -->" if name in parts else found[0]


def shown_seeds(folder: Path, study: Study) -> tuple[int, ...]:
    """Return the seeds whose numbers the pages of a study show, by the command that they name; none if not run yet."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.md")))
    parts = [(name, part) for name, part in _PART.findall(text) if name.split("/")[0] == study.name]
    how_name = f"{study.name}/how"
    if not any("| --- |" in part or "|---|" in part for name, part in parts if name != how_name):
        return ()
    commands = re.findall(r"--seeds ([\d,]+)", "".join(part for name, part in parts if name == how_name))
    return tuple(map(int, commands[0].split(","))) if commands else study.seeds


def how(study: Study, seeds: Sequence[int], choices: Mapping[str, Choice], machines: Sequence[str]) -> str:
    """Return the command, the seeds, the budget, what rates rest on and the machines of a study as Markdown."""
    words = ["python -m experiments.evidence", study.name]
    words += ["--root DIR"] if study.needs_images else []
    words += [f"--seeds {','.join(map(str, seeds))}"] if tuple(seeds) != study.seeds else []
    rates = ", ".join(f"{rate:g}" for rate in study.learning_rates)
    said = [f"{study.about} Fields of all recipes: {', '.join(f'`{word}`' for word in study.budget)}."]
    if study.draws_images:
        said.append("Each seed draws training images of its own, the same for all arms.")
    if study.choosing_seeds:
        one = " (one run for each rate, so chance may have chosen)" if len(study.choosing_seeds) == 1 else ""
        said.append(
            f"Each arm has its own best learning rate of {rates} (unless its name says otherwise), by the mean "
            f"accuracy on held-out images with {_listed(study.choosing_seeds)}{one}; the test images chose nothing."
        )
    listed = _listed(seeds)
    said.append(
        f"{listed[0].upper()}{listed[1:]}: mean ± standard deviation at the end of training; gains are over the same "
        "seed, with their 95 % Student-t interval."
    )
    prose = textwrap.fill(" ".join(said), _WIDTH, break_long_words=False, break_on_hyphens=False)
    ran_on = f"*Machine{'s' if len(machines) > 1 else ''}: {'; '.join(machines)}.*"
    blocks = ["\n".join(["```bash", " ".join(words), "```"]), prose, rates_table(choices), ran_on]
    return "\n\n".join(block for block in blocks if block)


def _listed(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


@dataclass(frozen=True)
class _Machine:
    """What is told of the environment.json of a run."""

    cores: int
    processor: str
    gpus: tuple[str, ...]
    python: str
    packages: dict[str, str | None]
    engine: str
    git_revision: str | None

    def __str__(self) -> str:
        gpus = f"{len(self.gpus)} x {self.gpus[0]}" if self.gpus else "no GPU"
        revision = f" at {self.git_revision[:7]}" if self.git_revision else ""
        return (
            f"{self.cores} cores of {self.processor}, {gpus}, torch {self.packages['torch']}, Python {self.python}, "
            f"engine {self.engine}{revision}"
        )


_MACHINE = TypeAdapter(_Machine)


def machines_of(folders: Iterable[Path]) -> list[str]:
    """Return on what runs were trained, each machine once.

    Raises:
        RunError: a run does not say it.
    """
    places = [folder / "environment.json" for folder in folders]
    found = [checked(read_json(place, RunError), _MACHINE, place, RunError) for place in places]
    return list(dict.fromkeys(map(str, found)))

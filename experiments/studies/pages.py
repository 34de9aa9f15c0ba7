"""Writes what a study found into the marked parts of the pages of results."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.atomic import replace_file
from engine.training.environment import describe_environment
from experiments.studies.study import Study

_PART = re.compile(r"(<!-- evidence (\S+) -->\n)(?:(?!<!-- evidence ).)*?(<!-- end -->)", re.DOTALL)
_WIDTH = 120


def write_parts(folder: Path, parts: Mapping[str, str]) -> dict[str, Path]:
    """Put parts between their marks, `<!-- evidence NAME -->` and `<!-- end -->`, in the pages of a folder.

    Args:
        folder: with the pages.
        parts: Markdown by name; what a page marks and is not among them stays as it is.

    Returns:
        by part the page that holds it; a part that no page marks is not among them.
    """
    written: dict[str, Path] = {}
    for page in sorted(folder.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        marked = [name for _, name, _ in _PART.findall(text) if name in parts]
        if marked:
            changed = _PART.sub(lambda found: _filled(found, parts), text)
            if changed != text:
                replace_file(page, changed.encode())
            written |= dict.fromkeys(marked, page)
    return written


def _filled(found: re.Match[str], parts: Mapping[str, str]) -> str:
    before, name, after = found.groups()
    return f"{before}\n{parts[name].strip()}\n\n{after}" if name in parts else found[0]


def how(study: Study, seeds: Sequence[int]) -> str:
    """Return the command, the seeds, the budget and the machine of a study as Markdown."""
    words = ["python -m experiments.evidence", study.name]
    words += ["--root DIR"] if study.needs_images else []
    words += [f"--seeds {','.join(map(str, seeds))}"] if tuple(seeds) != study.seeds else []
    rates = ", ".join(f"{rate:g}" for rate in study.learning_rates)
    said = [f"{study.about} Fields of all recipes: {', '.join(f'`{word}`' for word in study.budget)}."]
    if study.draws_images:
        said.append("Each seed draws training images of its own, the same for all arms.")
    if study.choosing_seeds:
        said.append(
            f"Each arm has its own best learning rate of {rates} (unless its name says otherwise), by the mean "
            f"accuracy on held-out images with {_listed(study.choosing_seeds)}; the test images chose nothing."
        )
    listed = _listed(seeds)
    said.append(
        f"{listed[0].upper()}{listed[1:]}: mean ± standard deviation at the end of training; gains are over the same "
        "seed, with their 95 % Student-t interval."
    )
    prose = textwrap.fill(" ".join(said), _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(["```bash", " ".join(words), "```", "", prose, "", f"*{_machine()}*"])


def _listed(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _machine() -> str:
    found = describe_environment()
    gpus = f"{len(found['gpus'])} x {found['gpus'][0]}" if found["gpus"] else "no GPU"
    torch, python = found["packages"]["torch"], found["python"]
    cores = f"{found['cores']} of {os.cpu_count()} cores of {found['processor']}"
    return f"Machine: {cores}, {gpus}, torch {torch}, Python {python}."

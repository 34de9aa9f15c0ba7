"""Trials of a search as lines of JSON, checked when they are read."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from engine.atomic import open_appending, replace_file, write_error
from engine.errors import RunError
from engine.reading import checked, parse_json, read_bytes
from engine.search.definition import MOST_TRIALS, Sweep
from engine.search.settings import choices
from engine.search.trial import Stage, Status, Trial

LOG_BYTES = 256 * 2**20
"""The largest trials.jsonl that is read, in bytes."""

_ADVICE = "bring back a whole copy of it, or give another --run-dir, or --resume never to start a new search beside it"
_Count = Annotated[int, Field(ge=0, lt=2**63)]


@with_config(ConfigDict(extra="forbid", strict=True))
class _Line(TypedDict):
    number: Annotated[int, Field(ge=0, lt=MOST_TRIALS)]
    settings: dict[str, Any]
    status: Status
    epochs: _Count
    metrics: dict[str, float | None]
    error: str | None
    generation: _Count
    lineage: list[Stage]


_LINE = TypeAdapter(_Line)


def read_trials(log: Path, sweep: Sweep) -> dict[int, Trial]:
    """Return the newest state of every trial, by number; what a kill left half written is cut off.

    Args:
        log: trials.jsonl; need not exist.
        sweep: whose space says what settings there can be.

    Raises:
        RunError: a line is damaged, or says of a trial what cannot be.
    """
    found: dict[int, Trial] = {}
    if not os.path.lexists(log):
        return found
    content = _mended(log)
    for place, line in enumerate(content.splitlines(), 1):
        where = f"{log}: line {place}"
        values = checked(parse_json(line, where, RunError, advice=_ADVICE), _LINE, where, RunError, advice=_ADVICE)
        _check_settings(values["settings"], sweep, where)
        for stage in values["lineage"]:
            _check_settings(stage["settings"], sweep, where)
        metrics = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
        fields: dict[str, Any] = {**values, "metrics": metrics}
        trial = Trial(**fields)
        ends = [stage["until_epoch"] for stage in trial.lineage]
        if ends != sorted(set(ends)) or trial.epochs < trial.began_at:
            raise RunError(f"{where}: lineage and epochs={trial.epochs} contradict each other; {_ADVICE}")
        found[trial.number] = trial
    return found


def append_trial(log: Path, trial: Trial) -> None:
    """Add the state of a trial; it is on the disk when this returns.

    Raises:
        RunError: it cannot be written.
    """
    metrics = {name: value if math.isfinite(value) else None for name, value in trial.metrics.items()}
    values = {**dataclasses.asdict(trial), "settings": dict(trial.settings), "metrics": metrics}
    try:
        with open_appending(log) as file:
            file.write(json.dumps(values) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(log, error) from error


def _mended(log: Path) -> bytes:
    """Cut off what a process was writing when it was killed, so that the next line does not follow it."""
    content = read_bytes(log, RunError, LOG_BYTES, follow_links=False, advice=_ADVICE)
    if content and not content.endswith(b"\n"):
        whole, _, last = content.rpartition(b"\n")
        try:
            json.loads(last)
        except (ValueError, RecursionError):
            content = whole + b"\n" if whole else b""
        else:
            content += b"\n"
        replace_file(log, content)
    return content


def _check_settings(settings: Mapping[str, Any], sweep: Sweep, where: str) -> None:
    if set(settings) != set(sweep.space):
        names = ", ".join(map(ascii, sorted(set(settings) ^ set(sweep.space))))
        raise RunError(f"{where}: settings: has other fields than the search ({names}); {_ADVICE}")
    for name, value in settings.items():
        listed = choices(sweep, name)
        if listed is not None:
            # As text, because Python counts True among the ones.
            fits = json.dumps(value) in map(json.dumps, listed)
        else:
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not fits:
            raise RunError(f"{where}: settings: {name}={ascii(value)[:100]} is none of its values; {_ADVICE}")

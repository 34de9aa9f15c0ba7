"""The report of a search: one table and one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.atomic import replace_file, replacing
from engine.search.definition import Sweep
from engine.search.searcher import importances
from engine.search.settings import Settings, choices
from engine.search.trial import Trial
from engine.search.winners import ranked
from engine.tracking import format_bytes, format_share, read_metrics
from engine.tracking.figures import FAINT, INK, STRONG, TEXT_SIZE, colours, dress, open_figure

_ALARM = "#d55e00"


def value_in_words(sweep: Sweep, name: str, value: float | None) -> str:
    """Return a metric of a trial with its unit, such as ``91.20 %`` or ``1.5 MiB``."""
    if value is None or math.isnan(value):
        return ""
    if sweep.measures[name.replace("test/", "validation/")].is_share:
        return format_share(value)
    return format_bytes(int(value)) if name.endswith("bytes") else f"{value:,.4g}"


def setting_in_words(value: Any) -> str:
    """Return a setting in a few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table_rows(sweep: Sweep, trials: Sequence[Trial], front: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Return the titles and rows of the table of trials, the best first."""
    metrics = [sweep.judged_by, *sweep.against]
    tested = sweep.judged_by.replace("validation/", "test/")
    short = {name: name.rpartition(".")[2] for name in sweep.space}
    fields = list(short.values()) if len(set(short.values())) == len(short) else list(short)
    titles = ["trial", *fields, "epochs", *metrics, tested, "state"]
    rows = []
    for trial in ranked(sweep, trials):
        state = trial.status if trial.number not in front else f"{trial.status}, Pareto front"
        rows.append(
            [
                trial.name,
                *(setting_in_words(trial.settings.get(name)) for name in sweep.space),
                str(trial.epochs),
                *(value_in_words(sweep, name, trial.metrics.get(name)) for name in (*metrics, tested)),
                state,
            ]
        )
    return titles, rows


def write_report(
    sweep: Sweep,
    trials: Sequence[Trial],
    best: Trial | None,
    front: Sequence[int],
    folder: Path,
    *,
    warnings: Sequence[str],
    draw: bool,
) -> None:
    """Write sweep.md and, unless told not to draw, sweep.png into the folder of a search."""
    titles, rows = table_rows(sweep, trials, front)
    lines = [f"# {sweep.name}: {len(trials)} trials", "", _row(titles), _row(["---"] * len(titles))]
    lines += [_row(row) for row in rows]
    for warning in warnings:
        lines += ["", f"{warning}."]
    if best is not None:
        words = [f"{name}={setting_in_words(value)}" for name, value in best.settings.items()]
        lines += ["", f"Best: {best.name}, {' '.join(words)}; its recipe is `trials/{best.name}/recipe.json`."]
        lines += _schedule(sweep, best) if best.lineage else []
    counted = importances(sweep, trials)
    if counted:
        lines += ["", "How much each field decided: " + ", ".join(f"{n} {v:.0%}" for n, v in counted.items()) + "."]
    replace_file(folder / "sweep.md", ("\n".join(lines) + "\n").encode())
    if draw:
        plot(sweep, trials, front, counted, folder)


def _schedule(sweep: Sweep, trial: Trial) -> list[str]:
    """Return the settings that led to a member of a population, as lines."""
    lines = ["", f"It was trained with these settings (`trials/{trial.name}/lineage.json`):", ""]
    lines += [_row(["epochs", *sweep.space, "run"]), _row(["---"] * (len(sweep.space) + 2))]
    first = 1
    for last, run, settings in _stages(trial):
        lines.append(_row([f"{first}-{last}", *(setting_in_words(settings[name]) for name in sweep.space), run]))
        first = last + 1
    return lines


def _stages(trial: Trial) -> list[tuple[int, str, Settings]]:
    """Return the last epoch, the run folder and the settings of each part of a trial's training."""
    before = [(stage["until_epoch"], stage["run"], stage["settings"]) for stage in trial.lineage]
    return [*before, (trial.epochs, trial.name, trial.settings)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot(
    sweep: Sweep, trials: Sequence[Trial], front: Sequence[int], counted: Mapping[str, float], folder: Path
) -> None:
    """Draw the metric over each searched field, the learning curves, and the metric against what it is held against."""
    panels = [*sweep.space, None, *[f"against {name}" for name in sweep.against]]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = open_figure(4.2 * columns, 3.3 * rows + 0.4, sweep.name)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each in axes[len(panels) :]:
        each.set_visible(False)
    known = [trial for trial in trials if sweep.judged_by in trial.metrics]
    for place, name in enumerate(sweep.space):
        if sweep.scheduler == "pbt":
            _over_epochs(axes[place], sweep, name, known)
            continue
        title = name + (f", decides {counted[name]:.0%}" if name in counted else "")
        _over_field(axes[place], sweep, name, title, known)
    _curves(axes[len(sweep.space)], sweep, known, folder)
    for place, name in enumerate(sweep.against, start=len(sweep.space) + 1):
        _against(axes[place], sweep, name, known, front)
    with replacing(folder / "sweep.png") as aside:
        figure.savefig(aside, format="png")


def _over_field(axes: Any, sweep: Sweep, name: str, title: str, trials: Sequence[Trial]) -> None:
    listed = choices(sweep, name)
    for trial in trials:
        value = trial.settings[name]
        across = listed.index(value) if listed is not None else value
        finished = trial.status == "finished"
        axes.plot(across, trial.metrics[sweep.judged_by], "o", color=STRONG if finished else FAINT, markersize=5)
    if listed is not None:
        axes.set_xticks(range(len(listed)), [setting_in_words(value) for value in listed])
        axes.set_xlim(-0.5, len(listed) - 0.5)
    elif len(trials) > 1 and min(t.settings[name] for t in trials) > 0:
        values = [trial.settings[name] for trial in trials]
        if max(values) / min(values) > 20:
            axes.set_xscale("log")
    dress(axes, title, name, _label(sweep))


def _over_epochs(axes: Any, sweep: Sweep, name: str, trials: Sequence[Trial]) -> None:
    listed = choices(sweep, name)
    found: list[float] = []
    # The best is drawn last, above the others.
    for place, trial in reversed(list(enumerate(ranked(sweep, trials)))):
        stages = _stages(trial)
        values = [settings[name] if listed is None else listed.index(settings[name]) for _, _, settings in stages]
        edges = [0, *(last for last, _, _ in stages)]
        axes.stairs(values, edges, baseline=None, color=FAINT if place else STRONG, linewidth=1.0 if place else 2.0)
        found += values
    if listed is not None:
        axes.set_yticks(range(len(listed)), [setting_in_words(value) for value in listed])
    elif found and min(found) > 0 and max(found) / min(found) > 20:
        axes.set_yscale("log")
    dress(axes, f"{name}; strong: best", "epoch", name)


def _curves(axes: Any, sweep: Sweep, trials: Sequence[Trial], folder: Path) -> None:
    found = colours([trial.name for trial in trials])
    split, _, metric = sweep.judged_by.partition("/")
    for trial in trials:
        values: dict[int, list[float]] = {}
        first = 1
        for last, run, _ in _stages(trial):
            if not (folder / "trials" / run / "metrics.jsonl").is_file():
                continue
            for record in read_metrics(folder / "trials" / run):
                wanted = (record.split, record.name) == (split, metric) and record.learner != "ensemble"
                if wanted and (first <= record.epoch <= last):
                    values.setdefault(record.epoch, []).append(record.value)
            first = last + 1
        points = [(epoch, sum(each) / len(each)) for epoch, each in sorted(values.items())]
        if points:
            style = "-" if trial.status == "finished" else ":"
            axes.plot(*zip(*points, strict=True), style, color=found[trial.name], linewidth=1.2)
    dress(axes, "learning curves; dotted: not finished", "epoch", _label(sweep))


def _against(axes: Any, sweep: Sweep, name: str, trials: Sequence[Trial], front: Sequence[int]) -> None:
    finished = [trial for trial in trials if trial.status == "finished" and name in trial.metrics]
    unit = 2**20 if name.endswith("bytes") else 1
    for trial in finished:
        on_front = trial.number in front
        point = trial.metrics[name] / unit, trial.metrics[sweep.judged_by]
        axes.plot(*point, "o", color=_ALARM if on_front else STRONG, markersize=6 if on_front else 5)
        words = ", ".join(setting_in_words(value) for value in trial.settings.values())
        axes.annotate(words, point, (4, 3), textcoords="offset points", fontsize=TEXT_SIZE - 2.5, color=INK)
    across = f"{name.removesuffix('_bytes')} (MiB)" if unit > 1 else name
    axes.margins(x=0.16, y=0.1)
    dress(axes, "orange: Pareto front", across, _label(sweep))


def _label(sweep: Sweep) -> str:
    return sweep.judged_by if sweep.mode == "max" else f"{sweep.judged_by} (lower is better)"

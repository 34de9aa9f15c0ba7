"""A measurement as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from engine.benchmarking.baseline_cases import PIPELINES
from engine.benchmarking.case_results import CaseResult, Spread, best_of, faster, variants_of
from engine.benchmarking.result import BUSY_BESIDE, Measurement
from engine.benchmarking.settings_search import Search
from engine.benchmarking.tuned_cases import in_words
from engine.tracking import format_bytes, format_share
from engine.tracking.tables import format_rate

_MISSING = "-"
_SHARED = " *"
_LISTED_SHARES = 4
_LISTED_ROUNDS = 6
# From here on a learner waits longer than another one by more than rounds differ.
_UNEQUAL_WAITING = 0.1


def measured_table(found: Measurement) -> list[list[str]]:
    """Return header and rows as cells: of each family of baselines the best variant alone."""
    memory = "device memory" if found.machine.gpus else "resident"
    header = ["case", "workers", "images/s", "ms per step", "times end to end", "efficiency", "waiting"]
    return [[*header, "saved activations", memory], *(_cells(found, row) for row in best_of(found.rows))]


def _cells(found: Measurement, row: CaseResult) -> list[str]:
    step, efficiency = Spread.of(row.seconds), found.efficiency(row)
    held = row.device_bytes if found.machine.gpus else row.resident_bytes
    return [
        shown_name(found, row) + (_SHARED if found.shares_cores(row) else ""),
        f"{row.case.workers} x {row.case.threads}",
        format_rate(found.batch_size / row.step),
        f"{1e3 * step.median:.1f} ({1e3 * step.low:.1f}-{1e3 * step.high:.1f})",
        _times(faster(row, found.reference)),
        _MISSING if efficiency is None else f"{efficiency:.3f}",
        _waiting(row.waiting_shares),
        _memory(row, found.reference),
        _MISSING if held is None else format_bytes(held),
    ]


def shown_name(found: Measurement, row: CaseResult) -> str:
    """Return a case's name, and in which way it is the best of its variants if that needs words."""
    variants = variants_of(row, found.rows)
    if row.case.variant is None or len(variants) == 1:
        return row.case.name
    fastest = min(variants, key=lambda each: each.step)
    return f"{row.case.name} ({'fastest' if row is fastest else 'least memory'})"


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"


def _waiting(shares: Sequence[float]) -> str:
    if not shares:
        return _MISSING
    if len(shares) > _LISTED_SHARES:
        return f"{format_share(min(shares), 0)} to {format_share(max(shares), 0)}"
    return " / ".join(f"{100 * share:.0f}" for share in shares) + " %"


def _memory(row: CaseResult, reference: CaseResult) -> str:
    bytes_, whole = row.saved_activations, reference.saved_activations
    if bytes_ is None or not whole:
        return _MISSING
    return f"{format_bytes(bytes_)} ({bytes_ / whole:.3f})"


def verdicts(found: Measurement) -> list[str]:
    """Return in words how this engine does against each of the others, whether it wins or loses."""
    shown = best_of(found.rows)
    lines = []
    for row in shown:
        if row.case.family == "process":
            slower, kept = faster(found.reference, row), _memory(row, found.reference)
            lines.append(
                f"{row.case.name}: {_times(slower)} times the time of one step end to end, keeps {kept} at most at once"
            )
        if row.case.family != "ray" or row.case.workers == 1:
            continue
        rivals = [each for each in shown if each.case.family not in ("process", "ray")]
        rivals = [each for each in rivals if each.case.workers in (1, row.case.workers)]
        pipelines = [each for each in rivals if each.case.family in PIPELINES]
        best = min(pipelines, key=lambda each: each.step, default=None)
        for rival in rivals:
            which = ", the best pipeline" if rival is best and len(pipelines) > 1 else ""
            times = _times(faster(row, rival))
            lines.append(f"{row.case.name}: {times} times as fast as {shown_name(found, rival)}{which}")
    return lines


def search_lines(found: Measurement) -> list[str]:
    """Return which settings each baseline got, and among how many they were found."""
    return [_searched(found, each) for each in found.searches]


def _searched(found: Measurement, search: Search) -> str:
    usable, failed = search.usable, len(search.attempts) - len(search.usable)
    if search.chosen is None:
        return f"{search.name}: none of {len(search.attempts)} settings could run"
    others = f"1 of {len(usable)}"
    if len(usable) > 1:
        low, high = usable[0].seconds, usable[-1].seconds
        others += f" that were run for {search.seconds:.0f} s and took {1e3 * low:.1f} to {1e3 * high:.1f} ms per step"
    others += f"; {failed} could not run" if failed else ""
    others += "; neighbours were left untried" if search.is_cut_short else ""
    return f"{search.name}: {in_words(search.chosen.settings, found.blocks)} ({others})"


def simulated_lines(found: Measurement) -> list[str]:
    """Return what a device for each segment would bring, clearly as what it is."""
    if not found.simulated:
        return []
    lines = [
        "simulated, not measured: a device for each segment, from the measured time of every segment alone; sending is "
        "not counted. 1F1B has the cut that balances the measured times of single blocks on one micro-batch, for each "
        "of its stages the sum of its blocks' times (no stage was timed as a whole), and the micro-batches that are "
        "best for it"
    ]
    for each in found.simulated:
        if each.num_segments == 1:
            continue
        line = (
            f"  K = {each.num_segments}: step {1e3 * each.step:.1f} ms, {each.times_end_to_end:.2f} times end to end "
            "on one device"
        )
        parts = each.best_micro_batches
        if parts is not None:
            ratio = each.against_pipelines[parts]
            line += (
                f"; 1F1B at best, with {parts} micro-batches, {each.pipelines[parts]:.2f} times, so local learning "
                f"{'wins' if ratio > 1 else 'loses'} by {max(ratio, 1 / ratio):.2f}"
            )
        lines.append(line)
    return lines


def warnings(found: Measurement) -> list[str]:
    """Return what makes figures doubtful, and what was not measured."""
    lines = []
    doubtful = found.doubtful()
    if doubtful:
        most = max(doubtful, key=lambda row: row.others or 0.0)
        lines.append(
            f"warning: other processes used more than {BUSY_BESIDE:.0%} of a core beside {len(doubtful)} of "
            f"{len(found.rows)} cases (most: {most.others:.0%} beside {most.case.name}); measure on a quiet machine "
            "before you believe these figures"
        )
    if spoilt := found.spoilt_rounds():
        named = [f"{name}, round {number}: {share:.0%}" for name, number, share in spoilt[:_LISTED_ROUNDS]]
        named += [f"{len(spoilt) - _LISTED_ROUNDS} more"] if len(spoilt) > _LISTED_ROUNDS else []
        lines.append(
            f"warning: other processes used more than {BUSY_BESIDE:.0%} of a core in single rounds of {found.rounds} "
            f"({'; '.join(named)}); medians bear that, ranges do not"
        )
    if runs := found.doubtful_runs():
        what, share = max(runs, key=lambda run: run[1])
        lines.append(
            f"warning: other processes used more than {BUSY_BESIDE:.0%} of a core beside {len(runs)} of the runs "
            f"before the rounds (most: {share:.0%} beside {what}), so the settings of baselines and the simulation may "
            "not be the best; measure on a quiet machine before you believe these figures"
        )
    idle = max((row.own_waiting for row in found.rows), default=0.0)
    if idle > BUSY_BESIDE:
        lines.append(
            f"warning: the measurement's own processes, Ray's among them, used up to {idle:.0%} of a core while it was "
            "the turn of another"
        )
    if any(map(found.shares_cores, found.rows)):
        lines.append(
            f"*: more workers than {found.machine.describe()} can keep busy at once; they share them, so efficiency is "
            "that of the shared ones"
        )
    lines += [
        f"hint: {row.case.name}: learners wait between {_waiting([min(shares)])} and {_waiting([max(shares)])} of the "
        "time, so this machine needs other cuts than these; `local-learning estimate RECIPE --profile` times its "
        "blocks and prints cuts that fit"
        for row in found.rows
        if waits_unequally(row) and not found.shares_cores(row) and (shares := row.waiting_shares)
    ]
    lines += [f"left out: {name}: {reason}" for name, reason in found.left_out.items()]
    return lines


def waits_unequally(row: CaseResult) -> bool:
    """Return whether some segments, each on an actor, wait much longer than others."""
    shares = row.waiting_shares
    on_actors = row.case.family == "ray" and row.case.num_segments == len(shares) > 1
    return on_actors and max(shares) - min(shares) > _UNEQUAL_WAITING


def notes(found: Measurement) -> list[str]:
    """Return how the table is to be read."""
    lines = [
        f"{found.recipe.backbone.name}, batch {found.batch_size}, {found.images}; {found.machine.describe()}; medians "
        f"(smallest to largest) over {found.rounds} rounds of {found.steps} steps, in which all cases took turns",
        "workers: processes x threads of each; all cases start from the same weights and see the same batches",
        "saved activations: what autograd keeps at most at one time on the device that keeps most, heads and decoders "
        "included, counted exactly (and as a share of end to end)",
    ]
    if found.machine.gpus:
        lines.append(
            "ms per step: by the wall clock between times at which the GPUs have done all that was asked of them; what "
            "fills and empties a pipeline of this engine is timed alone and taken off. What each learner does then is "
            "not known on a GPU: efficiency, waiting, the simulation and timelines are left out"
        )
    else:
        lines += [
            "efficiency: time of the same work alone, learner after learner (baselines: end to end), / (workers x "
            "step)",
            "waiting: share of the time outside of calls, by learner; of baselines, without processor time",
            "resident: peak above the warmed-up process, of the one that needs most, in a run of its own with "
            "MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ of 1 MiB; pages shared with Ray's object store count",
        ]
    lines.append(
        "pipelines and data parallelism change what batch norms see; checkpointing runs batch norms twice; this "
        "engine's step is that of a pipeline that is full, as it is in training from the first steps to the last"
    )
    return lines


_PARTS = (verdicts, search_lines, simulated_lines, warnings, notes)


def lines_below(found: Measurement) -> list[list[str]]:
    """Return everything that is said below the table, part by part."""
    return [lines for each in _PARTS if (lines := each(found))]


def markdown_table(found: Measurement) -> str:
    """Return a Markdown page with everything that is printed."""
    header, *cells = [[cell.replace("*", "\\*").replace("|", "\\|") for cell in line] for line in measured_table(found)]
    table = [header, ["---", *["---:"] * (len(header) - 1)], *cells]
    parts = [
        f"# {found.recipe.name}, measured",
        "\n".join(f"| {' | '.join(line)} |" for line in table),
        *map(_listed, lines_below(found)),
    ]
    return "\n\n".join(parts) + "\n"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line.strip()}".replace("*", "\\*") for line in lines)

"""Real faults in real trainings, each compared with a training without: its weights, and what it leaves behind.

    python -m experiments.benchmarks.faults --count 200 --seed 0 --out FOLDER

Trainings of digits on Ray are drawn from the seed, each with some faults: signals to learners, the driver and Ray's
processes at exact moments, damage to files of checkpoints, a disk that takes nothing. A command that ends before the
training does is given again. What must be so is in `experiments/faults/checking.py`. FOLDER keeps what was found, so
that the same command goes on where it was ended, and the run folders of the trainings in which something was wrong.
With --minutes 15 it ends by itself, with a table of what there is so far: given again and again, it adds up to the same
trainings as one long command.

Seconds lost are those from a fault until the step in which it came was reported for good, Ray's start included.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from experiments.faults.checking import OUTCOMES, check
from experiments.faults.fault import KINDS, Case, draw_case
from experiments.faults.training import train_with_faults, undisturbed_weights

_TRAININGS = "trainings.jsonl"


def measure(case: Case, name: str, out: Path, bound_seconds: float) -> dict[str, Any]:
    """Train one case; returns what is kept of it, as plain JSON values."""
    weights = undisturbed_weights(case, out / "undisturbed")
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    trained = train_with_faults(case, folder, bound_seconds)
    checked = check(trained, weights)
    if not checked.problems:
        shutil.rmtree(folder)
    return {
        "recipe": case.recipe,
        "transport": case.transport,
        "faults": [
            {"fault": str(fault), "kind": fault.kind, "outcome": outcome, "seconds_lost": seconds}
            for fault, outcome, seconds in zip(case.faults, checked.outcomes, checked.seconds_lost, strict=True)
        ],
        "commands": [{"code": each.code, "words": each.words} for each in trained.commands],
        "problems": checked.problems,
        "seconds": time.monotonic() - started,
    }


def table(trainings: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table with a row for each kind of fault, and one for all."""
    columns = ["injected", *OUTCOMES, "median s lost", "max s lost"]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    every = [fault for training in trainings for fault in training["faults"]]
    for kind in (*KINDS, "all"):
        found = [fault for fault in every if kind in (fault["kind"], "all")]
        if found:
            counts = [sum(fault["outcome"] == outcome for fault in found) for outcome in OUTCOMES]
            lost = [fault["seconds_lost"] for fault in found if fault["seconds_lost"] is not None]
            seconds = [f"{statistics.median(lost):.1f}", f"{max(lost):.1f}"] if lost else ["", ""]
            lines.append(f"| {kind} | {len(found)} | {' | '.join(map(str, counts))} | {' | '.join(seconds)} |")
    return lines


def read(path: Path, seed: int) -> dict[int, dict[str, Any]]:
    """Return the trainings of a seed that an earlier command has finished, by their number."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["index"]: row for row in rows if row["seed"] == seed}


def main() -> None:
    """Train until there were enough faults, and print a table; ends with exit code 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="faults, at least; the last training is not cut short")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bound", type=float, default=600.0, help="seconds after which a command counts as hanging")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no further training is begun")
    arguments = parser.parse_args()
    started = time.monotonic()
    # The commands that it starts end with it, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    known = read(out / _TRAININGS, arguments.seed)
    done: list[dict[str, Any]] = []
    while sum(len(each["faults"]) for each in done) < arguments.count:
        index = len(done)
        row = known.get(index)
        if row is None:
            if time.monotonic() - started > 60.0 * arguments.minutes:
                break
            case = draw_case(arguments.seed, index)
            print(f"{index}: {case.recipe}, {case.transport}: {'; '.join(map(str, case.faults))}", flush=True)
            found = measure(case, f"training-{arguments.seed}-{index}", out, arguments.bound)
            row = {"seed": arguments.seed, "index": index, **found}
            with (out / _TRAININGS).open("a") as file:
                file.write(json.dumps(row) + "\n")
            outcomes = ", ".join(fault["outcome"] for fault in row["faults"])
            print(f"{index}: {outcomes}, in {row['seconds']:.0f} s", *row["problems"], sep="\n   ", flush=True)
        done.append(row)
    print(*table(done), sep="\n")
    injected = sum(len(each["faults"]) for each in done)
    if injected < arguments.count:
        print(f"{injected} of {arguments.count} faults so far: the same command goes on")
    results = {"seed": arguments.seed, "trainings": done, "table": table(done)}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    raise SystemExit(1 if any(row["problems"] for row in done) else 0)


if __name__ == "__main__":
    main()

"""The main job: InfoPro on two Ray actors, beside end-to-end, greedy and DGL, on real handwritten digits.

    make train

Seven settings with three seeds each, all from the shipped digits recipes: a ResNet-14 of widths (4, 8, 16), 500
training and 1297 test images, 15 epochs. InfoPro with K = 2 runs on two Ray actors and once more in this process,
and the weights of both are compared bit for bit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import engine
from engine.comparison import ComparisonRow, comparison_table, plot_comparison
from engine.errors import EXIT_INTERRUPTED
from engine.runtimes.ray import start_private_ray
from engine.tasks import ACCURACY
from engine.tracking import spared

SEEDS = (0, 1, 2)

SETTINGS: tuple[tuple[str, str, Sequence[str]], ...] = (
    ("end-to-end", "end_to_end_digits", ()),
    ("greedy K=2", "greedy_digits", ("method.num_segments=2",)),
    ("DGL K=2", "dgl_digits", ("method.num_segments=2",)),
    ("InfoPro K=2", "infopro_digits", ("method.num_segments=2",)),
    ("greedy K=7", "greedy_digits", ("method.num_segments=7",)),
    ("DGL K=7", "dgl_digits", ("method.num_segments=7",)),
    ("InfoPro K=7", "infopro_digits", ("method.num_segments=7",)),
)
RAY_LABEL = "InfoPro K=2, 2 Ray actors"


def new_folder() -> Path:
    """Return runs/first_run, or the next free name after it: nothing of an earlier call is touched or reused."""
    folder, number = Path("runs") / "first_run", 2
    while folder.exists():
        folder = folder.with_name(f"first_run-{number}")
        number += 1
    return folder


def run(folder: Path, label: str, recipe: str, overrides: Sequence[str], executor: str, seed: int) -> engine.Result:
    """Train a recipe with one seed."""
    plan = engine.Plan(evaluate_every_epochs=5, checkpoint_every_steps=10**6)
    words = [*overrides, f"seed={seed}", f"plan.executor={executor}"]
    resolved, plan = engine.apply_overrides(engine.load_recipe(recipe), plan, words)
    name = label.replace(" ", "_").replace(",", "")
    result = engine.train(resolved, plan, folder / f"{name}_seed{seed}")
    if result.status == "interrupted":
        raise KeyboardInterrupt
    return result


def leave_interrupts_to_training() -> None:
    """Let Ctrl-C, which a terminal sends to every process, end no worker outside of a run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def show(label: str, results: Sequence[engine.Result]) -> None:
    """Tell that all seeds of a setting are done."""
    accuracies = ", ".join(f"{result.test_score:.2%}" for result in results)
    print(f"  {label}: test accuracy {accuracies}", flush=True)


def run_on_ray(folder: Path) -> list[engine.Result]:
    """Train InfoPro with K = 2 on two actors, one seed after the other in one private Ray."""
    import ray

    start_private_ray()
    try:
        results = [run(folder, RAY_LABEL, "infopro_digits", ("method.num_segments=2",), "ray", seed) for seed in SEEDS]
    finally:
        ray.shutdown()
    show(RAY_LABEL, results)
    return results


def run_in_processes(folder: Path) -> dict[str, list[engine.Result]]:
    """Train every setting with every seed, each run in one process with one thread, as many at once as cores."""
    cores = len(os.sched_getaffinity(0))
    results: dict[str, list[engine.Result]] = {}
    with ProcessPoolExecutor(
        min(cores, len(SEEDS)), multiprocessing.get_context("spawn"), leave_interrupts_to_training
    ) as pool:
        waiting = {
            label: [pool.submit(run, folder, label, name, overrides, "process", seed) for seed in SEEDS]
            for label, name, overrides in SETTINGS
        }
        try:
            for label, runs in waiting.items():
                results[label] = [each.result() for each in runs]
                show(label, results[label])
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def as_row(label: str, results: Sequence[engine.Result]) -> ComparisonRow:
    """Return one row of the table: all seeds of one setting."""
    return ComparisonRow(
        label=label,
        scores=tuple(result.test_score or 0.0 for result in results),
        memory_bytes=results[0].peak_memory_bytes,
        images_per_second=statistics.median(result.images_per_second or 0.0 for result in results),
    )


def main() -> int:
    """Run everything, print the table, and return 1 if Ray and process disagree."""
    argparse.ArgumentParser(
        prog="python -m experiments.first_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    started, folder = time.monotonic(), new_folder()
    print(f"{len(SETTINGS) + 1} settings, {len(SEEDS)} seeds each:", flush=True)
    try:
        on_ray = run_on_ray(folder)
        in_process = run_in_processes(folder)
    except KeyboardInterrupt:
        print(f"interrupted; what was finished is in {folder.resolve()}", file=sys.stderr)
        return EXIT_INTERRUPTED

    rows = [as_row(label, results) for label, results in in_process.items()]
    rows.insert(4, as_row(RAY_LABEL, on_ray))
    digests = [(r.weights_sha256, p.weights_sha256) for r, p in zip(on_ray, in_process["InfoPro K=2"], strict=True)]
    equal = all(ray_digest == process_digest for ray_digest, process_digest in digests)

    print(f"\n{comparison_table(rows, ACCURACY)}\n")
    for seed, (ray_digest, process_digest) in zip(SEEDS, digests, strict=True):
        sign = "==" if ray_digest == process_digest else "!="
        print(f"seed {seed}: weights on Ray {ray_digest[:16]} {sign} in process {process_digest[:16]}")
    print(f"\nweights of the Ray runs {'equal' if equal else 'DIFFER FROM'} those of the runs in one process")
    picture = folder / "comparison.png"
    with spared("comparison.png", lambda warning: print(warning, file=sys.stderr)):
        plot_comparison(rows, picture, "Handwritten digits, ResNet-14 (4, 8, 16), 15 epochs, 3 seeds", ACCURACY)
    print(f"run folders    {folder.resolve()}")
    print(f"TensorBoard    .venv/bin/tensorboard --logdir {folder}")
    print(f"plot           {picture.resolve()}")
    print(f"took           {time.monotonic() - started:.0f} s")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())

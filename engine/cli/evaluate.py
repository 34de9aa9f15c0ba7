"""`local-learning evaluate`: how well does the network of a run do on its test images?"""

from __future__ import annotations

import argparse

from engine.cli.outcome import Outcome, aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``evaluate``."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished or interrupted run")
    parser.add_argument("--data-root", metavar="DIR", help="where the images lie now; as in the recipe unless given")


def run(options: argparse.Namespace) -> Outcome:
    """Score the newest complete checkpoint of the run."""
    from engine.training import evaluate, load

    opened = load(options.run)
    metrics = evaluate(opened, options.data_root)
    step = opened.checkpoint.step
    rows = [(name.replace("/", " "), _in_words(name, value)) for name, value in metrics.items()]
    values = {
        "run_dir": str(opened.path),
        "step": step,
        "test_accuracy": metrics.get("test/accuracy"),
        "metrics": metrics,
    }
    return Outcome([f"{opened.path} after step {step:,}:", *aligned(rows)], values)


def _in_words(name: str, value: float) -> str:
    if name.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if name.endswith("images") else f"{value:.4f}"

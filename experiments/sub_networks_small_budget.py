"""Sub-networks and group knowledge at a budget that a CPU can pay: 21 arms, 100 classes of 16x16 images.

    python -m experiments.sub_networks_small_budget --root DIR [--seeds 3]

DIR holds 100 classes of 32x32 images in any layout of Parquet shards that the engine reads; they are shrunk to 16x16.
The recipes are the shipped ones of CIFAR-100 with another budget: ResNet-20 of a quarter of the work (widths 8, 16,
32), 10,000 training images (stratified), 12 epochs, batch 64, learning rate 0.05, cosine to 0 over all steps, crops
out of a padding of 2 and mirroring but no colour jitter, channels_last, one thread. Hyper-parameters that count
epochs are scaled to the budget. Every tenth mixed step of MKF measures all rules of mixed knowledge fraction on the
knowledge that this run has. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from matplotlib.figure import Figure

import engine
from engine.recipes import Fraction
from engine.tracking import open_console

NETWORK = "cifar100_resnet50"
BUDGET = (
    "data.name=parquet",
    "data.image_size=16",
    "data.train_limit=10000",
    "data.augmentation.crop_padding=2",
    "data.augmentation.color_jitter=0",
    "backbone.name=resnet20",
    "backbone.widths=8,16,32",
    "epochs=12",
    "numerics.channels_last=true",
    "plan.executor=process",
    "plan.evaluate_every_epochs=12",
)
# What each arm is called, its recipe, and what it changes.
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "baseline": ("baseline", ()),
    "stochastic_depth": ("stochastic_depth", ()),
    "st": ("st", ()),
    "gkt": ("gkt", ()),
    **{
        f"mkf {rule}": ("mkf", (f"method.fraction={rule}", "method.measure_fraction_every=10"))
        for rule in (
            "keep",
            "none",
            "linear",
            "linear_clipped",
            "linear_clipped_heavy",
            "shared",
            "shared_clipped",
            "exact",
        )
    },
    "data_mix": ("data_mix", ()),
    "label_smoothing": ("label_smoothing", ()),
    "mixup": ("mixup", ()),
    "cutmix": ("cutmix", ()),
    "one": ("one", ("method.ramp_epochs=3",)),
    "cs_kd": ("cs_kd", ()),
    "ps_kd": ("ps_kd", ()),
    "lwr": ("lwr", ("method.interval=2", "method.horizon=14")),
    "dlb": ("dlb", ()),
}
FOLDER = Path("runs") / "sub_networks_small_budget"


def recipes(root: str) -> tuple[dict[str, engine.Recipe], engine.Plan]:
    """Return the recipe of every arm, and the plan that they share."""
    found, plan = {}, engine.Plan()
    for label, (arm, changes) in ARMS.items():
        words = [*BUDGET, *changes, f"data.root={root}"]
        found[label], plan = engine.apply_overrides(engine.load_recipe(f"{arm}_{NETWORK}"), engine.Plan(), words)
    return found, plan


def fraction_curves(folders: Sequence[Path]) -> dict[int, dict[str, float]]:
    """Return the fraction losses of some runs by epoch and name, means over all measurements of the epoch."""
    values: dict[int, dict[str, list[float]]] = {}
    for folder in folders:
        for record in engine.load(folder).metrics():
            if record.name.startswith("fraction/"):
                name = record.name.removeprefix("fraction/")
                values.setdefault(record.epoch, {}).setdefault(name, []).append(record.value)
    return {
        epoch: {name: statistics.fmean(found) for name, found in names.items()}
        for epoch, names in sorted(values.items())
    }


def fraction_table(curves: Mapping[int, Mapping[str, float]]) -> str:
    """Return the fraction losses times 1000 as Markdown, means over the second half of the epochs."""
    late = [found for epoch, found in curves.items() if epoch > max(curves) // 2]
    lines = ["| rule | fraction loss | bases alone | mixing model alone |", "|---|---|---|---|"]
    for rule in ("random", *get_args(Fraction)):
        means = [
            f"{1000 * statistics.fmean(found[rule + part] for found in late):.2f}" if rule + part in late[0] else ""
            for part in ("", "/bases", "/model")
        ]
        lines.append(f"| {rule} | {' | '.join(means)} |")
    return "\n".join(lines)


def plot_fractions(curves: Mapping[int, Mapping[str, float]], path: Path) -> None:
    """Draw every rule's fraction loss over the epochs, then the same with only one of its two causes left."""
    figure = Figure(figsize=(13, 3.9), dpi=130, layout="constrained")
    parts = (("", "fraction loss"), ("/bases", "of wrong bases alone"), ("/model", "of the mixing model alone"))
    columns = figure.subplots(1, 3, sharey=True)
    for axes, (suffix, title) in zip(columns, parts, strict=True):
        for place, rule in enumerate(("random", *get_args(Fraction))):
            points = [(epoch, found[rule + suffix]) for epoch, found in curves.items() if rule + suffix in found]
            style = "--" if rule == "random" else "-"
            if points:
                axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, color=f"C{place}", label=rule)
        axes.set_yscale("log")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(True, color="#e6e6e6")
    figure.legend(handles=columns[0].get_lines(), loc="outside right center", fontsize=9, frameon=False)
    figure.savefig(path)


def main() -> None:
    """Compare all arms, then show what MKF's splits are worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds the images")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    arguments = parser.parse_args()
    found, plan = recipes(arguments.root)
    with open_console(sys.stderr, quiet=False) as console:
        comparison = engine.compare(found, plan, range(arguments.seeds), FOLDER, console=console)
    if comparison.status != "finished":
        sys.exit(f"{comparison.status}; the same command goes on from {comparison.run_dir}")
    print((FOLDER / "comparison.md").read_text())
    curves = fraction_curves([FOLDER / "runs" / f"mkf_exact-seed{seed}" for seed in range(arguments.seeds)])
    print(fraction_table(curves))
    plot_fractions(curves, FOLDER / "fractions.png")
    print(f"fractions: {FOLDER / 'fractions.png'}")


if __name__ == "__main__":
    main()

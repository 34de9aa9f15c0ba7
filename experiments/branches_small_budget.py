"""Branches at a budget that a CPU can pay: a network alone, DSN, DSL and DHM, 100 classes of 16x16 images.

    python -m experiments.branches_small_budget --root DIR [--seeds 3]

DIR holds 100 classes of 32x32 images in any layout of Parquet shards that the engine reads; they are shrunk to 16x16.
The recipes are the shipped ones of CIFAR-100 with another budget: ResNet-20 of a quarter of the work (widths 8, 16,
32), 10,000 training images (stratified), 12 epochs, batch 64, learning rate 0.05, cosine to 0 over all steps, crops
out of a reflected padding of 2 and mirroring, channels_last, one thread. Every 25th step of an epoch measures how far
the gradients agree that the heads send into the features that they share. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

import engine
from engine.tracking import open_console
from experiments.sub_networks_small_budget import BUDGET

_MEASURED = "method.measure_gradients_every=25"
ARMS: dict[str, tuple[str, ...]] = {
    "unbranched": (),
    "dsn": (_MEASURED,),
    "dsl": (_MEASURED,),
    "dhm": (_MEASURED,),
    "dhm_sampled": (_MEASURED,),
}
CHANGES = (
    "optimizer.learning_rate=0.05",
    "schedule.kind=cosine",
    "schedule.interval=step",
    "data.batch_size=64",
    "data.augmentation.padding_mode=reflect",
)
FOLDER = Path("runs") / "branches_small_budget"
_COSINE = "branches/gradient_cosine/"
# The companions of DSN leave where the branches of the others do.
_PLACES = {"after_layer2_2": "near_top", "after_layer1_2": "deep"}
_ORDER = ("main", "near_top", "deep")


def recipes(root: str) -> tuple[dict[str, engine.Recipe], engine.Plan]:
    """Return the recipe of every arm, and the plan that they share."""
    found, plan = {}, engine.Plan()
    for arm, changes in ARMS.items():
        words = [*BUDGET, *CHANGES, *changes, f"data.root={root}"]
        recipe = engine.load_recipe(f"{arm}_cifar100_resnet32")
        found[arm], plan = engine.apply_overrides(recipe, engine.Plan(), words)
    return found, plan


def cosines(folders: Sequence[Path]) -> dict[str, dict[int, float]]:
    """Return the gradients' cosines of some runs by what was compared and by epoch, means over all measurements."""
    values: dict[str, dict[int, list[float]]] = {}
    for folder in folders:
        for record in engine.load(folder).metrics():
            if record.name.startswith(_COSINE):
                name = _named_by_place(record.name.removeprefix(_COSINE))
                values.setdefault(name, {}).setdefault(record.epoch, []).append(record.value)
    return {
        name: {epoch: statistics.fmean(found) for epoch, found in sorted(epochs.items())}
        for name, epochs in values.items()
    }


def _named_by_place(name: str) -> str:
    kind, _, pair = name.partition("/")
    heads = sorted((_PLACES.get(head, head) for head in pair.split("~")), key=_ORDER.index)
    return f"{kind}/{'~'.join(heads)}"


def cosine_table(found: dict[str, dict[str, dict[int, float]]]) -> str:
    """Return the cosines of each arm as Markdown, means over all epochs."""
    names = list(dict.fromkeys(name for arm in reversed(found.values()) for name in arm))
    lines = [f"| gradients | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for name in names:
        cells = [f"{statistics.fmean(arm[name].values()):.3f}" if name in arm else "" for arm in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot_cosines(found: dict[str, dict[str, dict[int, float]]], path: Path) -> None:
    """Draw how far the gradients of the label losses agree over the epochs, a panel for each pair of heads."""
    pairs = [name for name in found["dhm"] if name.startswith("label/")]
    figure = Figure(figsize=(3.6 * len(pairs), 3.4), dpi=130, layout="constrained")
    for axes, pair in zip(figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0], pairs, strict=True):
        for place, (arm, measured) in enumerate(found.items()):
            if pair in measured:
                axes.plot(*zip(*measured[pair].items(), strict=True), marker="o", color=f"C{place}", label=arm)
        axes.set_title(pair.removeprefix("label/").replace("~", " and "), loc="left", fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(True, color="#e6e6e6")
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle("cosine of the gradients of two heads' label losses in the features that they share", fontsize=10)
    figure.savefig(path)


def main() -> None:
    """Compare all arms, then show how far their gradients agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder that holds the images")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    arguments = parser.parse_args()
    made, plan = recipes(arguments.root)
    with open_console(sys.stderr, quiet=False) as console:
        comparison = engine.compare(made, plan, range(arguments.seeds), FOLDER, console=console)
    if comparison.status != "finished":
        sys.exit(f"{comparison.status}; the same command goes on from {comparison.run_dir}")
    print((FOLDER / "comparison.md").read_text())
    found = {
        arm: cosines([FOLDER / "runs" / f"{arm}-seed{seed}" for seed in range(arguments.seeds)])
        for arm in ARMS
        if arm != "unbranched"
    }
    print(cosine_table(found))
    plot_cosines(found, FOLDER / "cosines.png")
    print(f"cosines: {FOLDER / 'cosines.png'}")


if __name__ == "__main__":
    main()

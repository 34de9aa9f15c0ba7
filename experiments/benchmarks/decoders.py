"""Cost of InfoPro's decoders and heads, as they are written and as the engine evaluates them.

    python -m experiments.benchmarks.decoders [--device cuda] [--threads 1] [--rounds 7] [--parts auxiliary,steps]

auxiliary: forward and backward of decoder with reconstruction loss, and of head with cross-entropy, behind each stage
of a CIFAR ResNet, batch 128, and what they make autograd keep beyond the features. imagenet: the decoder for 224 x 224,
batch 8. steps: a training step of ResNet-32 in one process with InfoPro at K = 2, 3, 4, cut where memory is balanced,
beside end-to-end training. "Written": torch's own layers, upsampling before the convolution, everything kept. All in
float32, contiguous and channels_last; medians over rounds of all ways in turn, marked beside 5 % of a core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.data import open_source
from engine.learners import numerics_applied
from engine.learners.memory import SavedActivations
from engine.methods import infopro, method_of
from engine.objectives import conv_head, decoder_for, head_for, reconstruction_loss
from engine.objectives.convolutions import Convolution, MeanOfPositions, UpsampledConvolution
from engine.objectives.pooling import GlobalAveragePool
from engine.recipes import Backbone, Data, EndToEnd, InfoPro, Numerics, Plan, Recipe
from engine.runtimes import open_runtime
from engine.streams import generator
from engine.tasks import task
from experiments.benchmarks.side_by_side import in_turn
from experiments.benchmarks.words import names_among

PARTS = ("auxiliary", "imagenet", "steps")
BATCH_SIZE, IMAGE, CLASSES = 128, (3, 32, 32), 10
FEATURES = ((16, 32, 32), (32, 16, 16), (64, 8, 8))
IMAGENET_BATCH_SIZE, IMAGENET = 8, (3, 224, 224)
IMAGENET_FEATURES = ((256, 56, 56), (512, 28, 28), (1024, 14, 14))
# Blocks of ResNet-32 after which to cut so that the largest segment keeps least, by the number of segments.
CUTS = {2: ("layer1_3",), 3: ("layer1_1", "layer1_4"), 4: ("layer1_1", "layer1_3", "layer2_1")}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

Call = Callable[[], None]


class Resize(nn.Module):
    """Bilinear resizing with aligned corners, as a layer of its own."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Return ``[B, C, *size]`` of features ``[B, C, H, W]``."""
        return F.interpolate(features, size=self.size, mode="bilinear", align_corners=True)


def as_written(network: nn.Sequential) -> nn.Sequential:
    """Return a decoder or head as torch's own layers with the same weights, resizing before a convolution."""
    layers: list[nn.Module] = []
    for number, layer in enumerate(network):
        if isinstance(layer, Convolution):
            if isinstance(layer, UpsampledConvolution):
                layers[number - 1] = Resize(layer.size)
            kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.kernel_size[0] // 2
            biased = layer.bias is not None
            layers.append(nn.Conv2d(layer.in_channels, layer.out_channels, kernel, stride, padding, bias=biased))
        else:
            layers.append(GlobalAveragePool() if isinstance(layer, MeanOfPositions) else layer)
    written = nn.Sequential(*layers)
    written.load_state_dict(network.state_dict())
    return written


def seconds_of(call: Call, device: torch.device) -> Callable[[], float]:
    """Return a function that measures one call, after one that is not counted."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def measure() -> float:
        call()
        wait()
        started = time.perf_counter()
        call()
        wait()
        return time.perf_counter() - started

    return measure


def kept_by(call: Call, own: list[Tensor]) -> float:
    """Return the MiB that autograd keeps beyond tensors that exist anyway."""
    saved = SavedActivations(own)
    with saved.counting():
        call()
    return saved.bytes / 2**20


def auxiliary_call(network: nn.Sequential, features: Tensor, target: Tensor, kind: str, written: bool) -> Call:
    """Return forward and backward of a decoder or head with its loss."""

    def call() -> None:
        if kind == "head":
            loss = F.cross_entropy(network(features), target)
        elif written:
            loss = F.binary_cross_entropy_with_logits(network(features), target)
        else:
            loss = reconstruction_loss(network(features), target)
        loss.backward()

    return call


def measure_auxiliary(
    shapes: tuple[tuple[int, int, int], ...],
    image: tuple[int, int, int],
    batch_size: int,
    kinds: tuple[str, ...],
    rounds: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return one row for each kind of network, shape of features and layout."""
    rows: list[dict[str, Any]] = []
    pixels = torch.rand((batch_size, *image), generator=generator("pixels")).to(device)
    labels = torch.randint(CLASSES, (batch_size,), generator=generator("labels")).to(device)
    for kind in kinds:
        for shape in shapes:
            for layout, memory_format in LAYOUTS.items():
                network = decoder_for(shape, image) if kind == "decoder" else conv_head(shape, CLASSES, 64)
                features = torch.randn((batch_size, *shape), generator=generator("features")).to(device)
                features = features.contiguous(memory_format=memory_format).requires_grad_()
                target = pixels if kind == "decoder" else labels
                ways: dict[str, Callable[[], float]] = {}
                kept: dict[str, float] = {}
                for way, each in (("written", as_written(network)), ("engine", network)):
                    placed = each.to(device).to(memory_format=memory_format)
                    call = auxiliary_call(placed, features, target, kind, way == "written")
                    kept[way] = kept_by(call, [features, target, *placed.parameters(), *placed.buffers()])
                    ways[way] = seconds_of(call, device)
                taken, loads = in_turn(ways, rounds)
                rows.append(
                    {
                        "what": f"{kind}, {' x '.join(map(str, shape))}, {layout}",
                        **{f"{way}_milliseconds": 1000 * statistics.median(taken[way]) for way in ways},
                        **{f"{way}_kept_mib": kept[way] for way in ways},
                        "others_cpu_share": statistics.median([*loads["written"], *loads["engine"]]),
                    }
                )
    return rows


def make_recipe(num_segments: int, channels_last: bool, threads: int, device: str) -> Recipe:
    """Return the recipe of one row."""
    infopro_settings = InfoPro(num_segments=num_segments, cuts=CUTS[num_segments]) if num_segments > 1 else None
    return Recipe(
        name="decoders",
        method=infopro_settings or EndToEnd(),
        backbone=Backbone(name="resnet32"),
        data=Data(
            name="synthetic",
            num_classes=CLASSES,
            image_size=IMAGE[1],
            synthetic_images=2 * BATCH_SIZE,
            batch_size=BATCH_SIZE,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        numerics=Numerics(threads=threads, device="cuda" if device == "cuda" else "cpu", channels_last=channels_last),
    )


def step_of(recipe: Recipe, written: bool) -> tuple[Call, Call]:
    """Return a function that trains for one step in this process, and one that ends the training."""

    def decoder(features: tuple[int, ...], image: tuple[int, int, int]) -> nn.Sequential:
        network = decoder_for(features, image)
        return as_written(network) if written else network

    def head(
        features: tuple[int, ...], image: tuple[int, int, int], outputs: int, final_channels: int
    ) -> nn.Sequential:
        network = head_for(features, image, outputs, final_channels)
        return as_written(network) if written else network

    source = open_source(recipe.data, recipe.seed)
    team = method_of(recipe).team(recipe, source.facts)
    with patch.object(task, "decoder_for", decoder), patch.object(infopro, "head_for", head):
        plan = Plan(executor="process", report_every_steps=10**6)
        runtime = open_runtime(recipe, source.facts, team, 10**6, plan)
    batch = source.batch(0, 0)
    step = 0

    def call() -> None:
        nonlocal step
        runtime.submit(team.program(step), batch)
        step += 1

    def close() -> None:
        runtime.close()
        source.close()

    return call, close


def measure_steps(rounds: int, device: torch.device, threads: int) -> list[dict[str, Any]]:
    """Return one row for each number of segments and layout."""
    rows: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        ways: dict[str, Callable[[], float]] = {}
        endings: list[Call] = []
        for num_segments in (1, 2, 3, 4):
            recipe = make_recipe(num_segments, layout == "channels_last", threads, device.type)
            for way in ("engine",) if num_segments == 1 else ("written", "engine"):
                call, close = step_of(recipe, way == "written")
                ways[f"{num_segments} {way}"] = seconds_of(call, device)
                endings.insert(0, close)
        try:
            taken, loads = in_turn(ways, rounds)
        finally:
            for close in endings:
                close()
        whole = taken["1 engine"]

        def beside_whole(way: str, taken: dict[str, list[float]] = taken, whole: list[float] = whole) -> float:
            return statistics.median(each / one for each, one in zip(taken[way], whole, strict=True))

        for num_segments in CUTS:
            rows.append(
                {
                    "what": f"InfoPro, K = {num_segments}, {layout}",
                    **{
                        f"{way}_milliseconds": 1000 * statistics.median(taken[f"{num_segments} {way}"])
                        for way in ("written", "engine")
                    },
                    "end_to_end_milliseconds": 1000 * statistics.median(whole),
                    **{f"{way}_of_end_to_end": beside_whole(f"{num_segments} {way}") for way in ("written", "engine")},
                    "others_cpu_share": statistics.median(load for each in loads.values() for load in each),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    steps = "end_to_end_milliseconds" in rows[0]
    third = "of end-to-end, written -> engine" if steps else "MiB kept, written -> engine"
    lines = [f"| | written, ms | engine, ms | faster by | {third} | |", "|---|---|---|---|---|---|"]
    for row in rows:
        written, engine = row["written_milliseconds"], row["engine_milliseconds"]
        names = ("written_of_end_to_end", "engine_of_end_to_end") if steps else ("written_kept_mib", "engine_kept_mib")
        before, after = (row[name] for name in names)
        busy = "beside other work" if row["others_cpu_share"] > 0.05 else ""
        lines.append(
            f"| {row['what']} | {written:.1f} | {engine:.1f} | {written / engine:.2f} | {before:.3f} -> {after:.3f} "
            f"| {busy} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print one table for each part and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", type=names_among(PARTS), default=",".join(PARTS))
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    device, rounds = torch.device(arguments.device), arguments.rounds
    measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "auxiliary": lambda: measure_auxiliary(FEATURES, IMAGE, BATCH_SIZE, ("decoder", "head"), rounds, device),
        "imagenet": lambda: measure_auxiliary(
            IMAGENET_FEATURES, IMAGENET, IMAGENET_BATCH_SIZE, ("decoder",), rounds, device
        ),
        "steps": lambda: measure_steps(rounds, device, arguments.threads),
    }
    print(f"{os.uname().machine}, {device}, {arguments.threads} threads, medians of {rounds} rounds\n")
    found: dict[str, list[dict[str, Any]]] = {}
    for part in arguments.parts:
        with numerics_applied(Numerics(threads=arguments.threads)):
            found[part] = measures[part]()
        print(f"{table(found[part])}\n", flush=True)
    document = {"machine": os.uname().machine, "device": str(device), "threads": arguments.threads, "rows": found}
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()

"""Times of torch's ways to step an optimizer: tensor by tensor, `foreach`, and fused.

    python -m experiments.benchmarks.optimizers [--networks resnet32,resnet110,resnet50] [--rounds 5] [--device cpu]

The parameters of a network with random gradients are stepped, one thread, as a learner's optimizer does it at the end
of each step. All ways take turns in every round; a figure is the median over rounds, each of which steps for a tenth of
a second. The weights after the first step tell whether two ways compute the same bits.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine import backbones
from engine.recipes import Backbone
from experiments.benchmarks.side_by_side import in_turn

_WAYS: dict[str, dict[str, bool]] = {
    "by tensor": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
_KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "AdamW": torch.optim.AdamW,
}
_SECONDS = 0.1


class Stepping:
    """An optimizer over a network's parameters.

    Args:
        kind: makes it.
        way: torch's switches.
        shapes: of the parameters.
        device: where they are.
    """

    def __init__(
        self, kind: Callable[..., torch.optim.Optimizer], way: dict[str, bool], shapes: list[Any], device: str
    ) -> None:
        random = torch.Generator().manual_seed(0)
        self.parameters: list[Tensor] = []
        for shape in shapes:
            parameter = torch.randn(shape, generator=random).to(device).requires_grad_()
            parameter.grad = torch.randn(shape, generator=random).to(device)
            self.parameters.append(parameter)
        self._device = torch.device(device)
        self._optimizer = kind(self.parameters, lr=0.1, weight_decay=1e-4, **way)
        self._optimizer.step()
        self.after_one = [parameter.detach().clone() for parameter in self.parameters]

    def seconds(self) -> float:
        """Return the seconds of one step."""
        self._wait()
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < _SECONDS:
            self._optimizer.step()
            self._wait()
            steps += 1
        return (time.perf_counter() - started) / steps

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet32,resnet110,resnet50")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| network | optimizer | {' | '.join(f'{way}, ms' for way in _WAYS)} | fused computes the same bits |")
    print("|---|---" + "|---" * (len(_WAYS) + 1) + "|")
    most = 0.0
    for network in options.networks.split(","):
        side = 224 if network == "resnet50" else 32
        built = backbones.build(Backbone(name=network), 10, (3, side, side), seed=0)
        shapes = [parameter.shape for parameter in built.parameters()]
        for kind, make in _KINDS.items():
            ways = {name: Stepping(make, way, shapes, options.device) for name, way in _WAYS.items()}
            taken, loads = in_turn({name: way.seconds for name, way in ways.items()}, options.rounds)
            most = max(most, *(statistics.median(shares) for shares in loads.values()))
            same = all(map(torch.equal, ways["by tensor"].after_one, ways["fused"].after_one))
            cells = " | ".join(f"{1000 * statistics.median(taken[way]):.2f}" for way in _WAYS)
            print(f"| {network}, {len(shapes)} tensors | {kind} | {cells} | {'yes' if same else 'no'} |", flush=True)
    print(f"\nothers used at most {most:.2f} of a core")


if __name__ == "__main__":
    main()

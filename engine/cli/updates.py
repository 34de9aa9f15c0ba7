"""Updates of the weights in a training, in words: optimizers, and the learning rates they begin and end with."""

from __future__ import annotations

from engine.learners.optimization import learning_rate
from engine.recipes import Adam, Optimizer, Recipe


def optimizers_of(recipe: Recipe) -> dict[str, Optimizer]:
    """Return the optimizers of a recipe by whose they are: "" for the recipe's, ``peer1`` for one of a peer's own."""
    peers = recipe.method.peer_optimizers
    own = {f"peer{place}": optimizer for place, optimizer in enumerate(peers) if optimizer is not None}
    # Where every peer has its own, nobody uses the recipe's.
    common = {"": recipe.optimizer} if not peers or len(own) < len(peers) else {}
    return common | own


def rates_of(recipe: Recipe, optimizer: Optimizer, steps_per_epoch: int) -> tuple[float, float]:
    """Return the learning rates of the first and of the last step of a run."""
    start, epochs, size = optimizer.learning_rate, recipe.epochs, steps_per_epoch
    first = learning_rate(recipe.schedule, start, epochs, size, 0, 0)
    return first, learning_rate(recipe.schedule, start, epochs, size, epochs - 1, size - 1)


def update_lines(recipe: Recipe, steps_per_epoch: int) -> list[str]:
    """Return a line for each optimizer, and one for the schedule of its rate."""
    lines = []
    for whose, optimizer in optimizers_of(recipe).items():
        of = f" of {whose}" if whose else ""
        first, last = rates_of(recipe, optimizer, steps_per_epoch)
        lines += [
            f"optimizer{of}: {optimizer.kind}, learning rate {optimizer.learning_rate:g}, "
            f"weight decay {optimizer.weight_decay:g}, {_momentum(optimizer)}",
            f"schedule{of}: {recipe.schedule.kind}, learning rate {first:g} in the first step, {last:g} in the last",
        ]
    return lines


def _momentum(optimizer: Optimizer) -> str:
    if isinstance(optimizer, Adam):
        return f"betas {optimizer.betas[0]:g} and {optimizer.betas[1]:g}"
    nesterov = getattr(optimizer, "nesterov", False)
    return f"{'Nesterov momentum' if nesterov else 'momentum'} {optimizer.momentum:g}"

"""Deep Mutual Learning (Zhang, Xiang, Hospedales, Lu 2018): K peers learn from labels and from one another.

    L_k = CE(z_k, y) + lambda * 1/(K-1) * sum_{j != k} KL(p_j || p_k)                             (paper, eq. 8)

All peers see the same augmented images. In the simultaneous schedule, the default, all p_j are made before the step;
in the sequential one (paper, Algorithm 1) each peer updates and restates its predictions for those after it. With
codistillation (Anil et al. 2018) they hear of one another in every S-th step only. A peer may itself be cut into
segments that learn locally: then the last segments teach one another and, where `local_weight` is set, so do the
local heads at the same depth. One more list of calls, at each depth:

    peer0 forward(batch) -> peer0_predictions          simultaneous       sequential
    peer1 forward(batch) -> peer1_predictions          as on the left     as on the left
    peer0 update(peer1_predictions)                                       and then
    peer1 update(peer0_predictions)                                       peer0 restate(batch) -> peer0_restated
                                                                          peer1 update(peer0_restated)
"""

from __future__ import annotations

import contextlib
import itertools

import torch
from torch import nn

from engine.data import Facts
from engine.errors import RecipeError
from engine.learners import FrozenPeer, Learner, Role
from engine.methods.cohort import members_of
from engine.methods.exchange import Exchange, Peer
from engine.methods.registry import chain_of
from engine.methods.segments import summarise
from engine.methods.tasks import distribution_axis, with_further_terms
from engine.methods.team import Network, Team
from engine.objectives import ConfidencePenalty, DistanceMimicry, FeatureMimicry, Mimicry, Objective, Term
from engine.partition import Segment
from engine.recipes import DML, EndToEnd, Recipe
from engine.streams import seeded
from engine.tasks import task_of


class _DeepMutualLearning:
    """Peers that learn from labels and from one another."""

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the learners of all peers, their programs, and one network for each peer."""
        exchange, bodies = _exchange(recipe, facts)
        summaries = []
        for depth in range(exchange.depths):
            for place, (peer, network) in enumerate(zip(exchange.peers, bodies, strict=True)):
                with torch.device("meta"):
                    objective = _objective(
                        exchange, place, depth, network, facts, peer.member.role(peer.segments[depth], (), False)
                    )
                summaries.append(summarise(peer.learner(depth), peer.segments[depth], network, objective))
        outputs = task_of(recipe, facts).outputs
        networks = {
            peer.member.name: Network(
                peer.member.recipe.backbone, tuple(peer.learner(depth) for depth in range(exchange.depths)), outputs
            )
            for peer in exchange.peers
        }
        programs = exchange.training_programs(recipe, facts)
        return Team(tuple(summaries), programs, exchange.evaluation_program(recipe, facts), networks)

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner:
        """Build the learner of one segment of one peer; all other weights are dropped at once."""
        exchange, bodies = _exchange(recipe, facts, wanted=name)
        place, depth = next(
            (place, depth)
            for place, peer in enumerate(exchange.peers)
            for depth in range(exchange.depths)
            if peer.learner(depth) == name
        )
        peer, network, method = exchange.peers[place], bodies[place], exchange.method
        member, segment = peer.member, peer.segments[depth]
        may_leave = len(exchange.peers) > 1 and method.on_divergence == "leave"
        role = member.role(segment, exchange.outputs(depth), may_leave)
        with seeded(role.seed, role.stream, "auxiliary"):
            objective = _objective(exchange, place, depth, network, facts, role)
        frozen = {}
        if method.exchange == "weights" and exchange.weight(depth):
            names = exchange.heard(place, depth, "predictions")
            for (message, other), predictions in zip(exchange.weights_of_others(place).items(), names, strict=True):
                theirs = other.member.role(other.segments[depth], (), False)
                frozen[message] = FrozenPeer(bodies[other.member.place], predictions, theirs.seed, theirs.stream)
        body = network[segment.start : segment.stop]
        return Learner(name, role, body, objective, member.recipe, facts, steps_per_epoch, device, frozen)


def _exchange(recipe: Recipe, facts: Facts, wanted: str | None = None) -> tuple[Exchange, list[nn.Sequential]]:
    """Return what the peers tell one another, and their networks with initial weights.

    For one wanted learner, only what it owns or copies has weights; the other networks are on the meta device.
    """
    method = recipe.method
    assert isinstance(method, DML)
    peers: list[Peer] = []
    networks: list[nn.Sequential] = []
    for member in members_of(recipe):
        owned = wanted is None or member.owns(wanted) or method.exchange == "weights"
        with contextlib.nullcontext() if owned else torch.device("meta"):
            network = member.network(facts)
        networks.append(network)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        width = linear[-1].in_features if linear else 0
        # Finding shapes runs the network: once for all peers that are alike.
        alike = next((peer for peer in peers if peer.member.recipe.backbone == member.recipe.backbone), None)
        segments = alike.segments if alike is not None else member.segments(facts, network)
        peers.append(Peer(member, segments, width, parameters))
    _refuse_without_features(method, peers)
    if method.feature_weight and len({peer.pooled for peer in peers}) > 1:
        found = ", ".join(f"{peer.pooled} of {peer.member.recipe.backbone.name}" for peer in peers)
        raise RecipeError(
            "method.feature_weight compares the features that enter the last linear layer of the peers, which must be "
            f"as many in all; found {found}: set it to 0, or choose backbones of one width"
        )
    _refuse_equal_weights(method, peers, networks)
    exchange = Exchange(method, tuple(peers))
    _refuse_other_positions(exchange, recipe, facts)
    return exchange, networks


def _refuse_without_features(method: DML, peers: list[Peer]) -> None:
    weights = {"feature_weight": method.feature_weight, "distance_weight": method.distance_weight}
    fields = [f"method.{name}" for name, weight in weights.items() if weight]
    without = [peer.member.recipe.backbone.name for peer in peers if not peer.pooled]
    if fields and without:
        compares, them = ("compares", "it") if len(fields) == 1 else ("compare", "both")
        raise RecipeError(
            f"{' and '.join(fields)} {compares} the features that enter the last linear layer, but "
            f"backbone.name={without[0]} has none: set {them} to 0, or choose another backbone"
        )


def _refuse_equal_weights(method: DML, peers: list[Peer], networks: list[nn.Sequential]) -> None:
    """Refuse peers that would be one network for ever, because all that they start from is the same file."""
    if method.schedule == "sequential" and method.weight:
        # The first has learned already when the second hears of it.
        return
    for (one, network), (other, _) in itertools.combinations(zip(peers, networks, strict=True), 2):
        own = one.member.recipe
        if own == other.member.recipe and own.backbone.weights is not None and not _draws(own, network):
            raise RecipeError(
                f"method.peers: peer {one.member.place} and peer {other.member.place} load all their weights from "
                f"{own.backbone.weights} and see the same images, so they would never differ, and peers learn from one "
                "another only where they disagree: leave backbone.weights out, give one of them another backbone or "
                "optimizer in method.peers, or set method.schedule=sequential"
            )


def _refuse_other_positions(exchange: Exchange, recipe: Recipe, facts: Facts) -> None:
    """Refuse peers whose predictions are compared at a depth and have other shapes there."""
    task, first = task_of(recipe, facts), exchange.peers[0]
    for depth in range(exchange.depths):
        if not exchange.weight(depth):
            continue
        shapes = [task.prediction_shape_of(peer.segments[depth].features, facts.image_shape) for peer in exchange.peers]
        other = next((place for place, shape in enumerate(shapes) if shape != shapes[0]), None)
        if other is None:
            continue
        is_last = depth == exchange.depths - 1
        field = "method.weight" if is_last else "method.local_weight"
        cuts = "" if is_last else f", or set {exchange.method.inside_field}.cuts to blocks whose maps have one size"
        raise RecipeError(
            f"{field}={exchange.weight(depth)} compares what peers predict position by position, but for each image "
            f"{first.learner(depth)} predicts {shapes[0]} and {exchange.peers[other].learner(depth)} {shapes[other]}: "
            "give all of method.peers backbones whose maps have one size, as with the same backbone.output_stride"
            f"{cuts}, or set {field}=0"
        )


def _draws(recipe: Recipe, network: nn.Sequential) -> bool:
    """Return whether a peer draws numbers of its own, or may, beside the weights that it loads."""
    backbone = recipe.backbone
    heads = not isinstance(recipe.method, EndToEnd) or backbone.auxiliary_heads or backbone.weights_without is not None
    # By name: torchvision, whose stochastic depth it is, need not be imported.
    kinds = ("Dropout", "StochasticDepth")
    may_draw = heads or ":" in backbone.name
    return may_draw or any(kind.__name__ in kinds for each in network.modules() for kind in type(each).__mro__)


def _require_predictions(objective: Objective, segment: Segment, method: DML) -> None:
    """Refuse mimicry of a local head where a segment has none that classifies."""
    if any(isinstance(term, Term) and type(term).predict is not Term.predict for term in objective.terms.values()):
        return
    inside = method.inside_field
    label_losses = {"infopro": f"{inside}.classification_weight=1", "predsim": f"{inside}.similarity_weight=0.99"}
    label_loss = label_losses.get(method.peer_method.kind, f"{inside}.kind=greedy")
    raise RecipeError(
        f"method.local_weight={method.local_weight}: {segment.name} of a peer predicts nothing that others could learn "
        f"from, because no loss of {inside} classifies there (found: {', '.join(objective.weights)}): set "
        f"method.local_weight=0, or give it one that does, as with {label_loss}"
    )


def _objective(
    exchange: Exchange, place: int, depth: int, network: nn.Sequential, facts: Facts, role: Role
) -> Objective:
    method, peer = exchange.method, exchange.peers[place]
    member = peer.member
    objective = chain_of(member.recipe).objective(
        member.recipe, facts, peer.segments[depth], network, (role.seed, role.stream)
    )
    objective = with_further_terms(objective, member.recipe, facts, peer.segments[depth])
    terms: dict[str, Term] = {}
    if exchange.weight(depth):
        is_last = depth == exchange.depths - 1
        axis = distribution_axis(member.recipe, facts, "method.weight" if is_last else "method.local_weight")
        if not is_last:
            _require_predictions(objective, peer.segments[depth], method)
        terms[Mimicry.name] = Mimicry(
            exchange.heard(place, depth, "predictions"),
            axis=axis,
            divergence=method.divergence,
            target=method.target,
            reduction=method.reduction,
            temperature=method.temperature,
        )
    if exchange.feature_weight(depth):
        terms[FeatureMimicry.name] = FeatureMimicry(exchange.heard(place, depth, "pooled"))
    if exchange.distance_weight(depth):
        terms[DistanceMimicry.name] = DistanceMimicry(exchange.heard(place, depth, "pooled"))
    if method.confidence_weight and depth == exchange.depths - 1:
        axis = distribution_axis(member.recipe, facts, "method.confidence_weight")
        terms[ConfidencePenalty.name] = ConfidencePenalty(axis)
    weights = {
        Mimicry.name: exchange.weight(depth),
        FeatureMimicry.name: exchange.feature_weight(depth),
        DistanceMimicry.name: exchange.distance_weight(depth),
        ConfidencePenalty.name: method.confidence_weight,
    }
    return objective.plus(terms, {name: weights[name] for name in terms})


METHOD = _DeepMutualLearning()

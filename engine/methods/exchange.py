"""Exchange in a cohort: the messages, and the order of calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.data import Facts
from engine.learners import Output
from engine.methods.cohort import Member
from engine.methods.segments import evaluation_features_message, evaluation_images_message, images_message
from engine.partition import Segment
from engine.program import BATCH, SOURCE, Call, Message, Program
from engine.recipes import DML, Recipe
from engine.tasks import task_of


@dataclass(frozen=True)
class Peer:
    """A peer with all that its calls and messages need.

    Attributes:
        member: who it is.
        segments: its segments in order.
        pooled: width D of the features that enter its last linear layer.
        parameters: number N of weights of its whole network.
    """

    member: Member
    segments: tuple[Segment, ...]
    pooled: int
    parameters: int

    def learner(self, depth: int) -> str:
        """Return the name of its learner at a depth."""
        return self.member.learner(self.segments[depth])


@dataclass(frozen=True)
class Exchange:
    """The messages of a cohort.

    Attributes:
        method: the recipe's method.
        peers: all of them, with as many segments each.
    """

    method: DML
    peers: tuple[Peer, ...]

    @property
    def depths(self) -> int:
        """Number of segments of each peer."""
        return len(self.peers[0].segments)

    def weight(self, depth: int) -> float:
        """Return the weight of mimicry at a depth; 0 for a peer that is alone."""
        if len(self.peers) == 1:
            return 0.0
        return self.method.weight if depth == self.depths - 1 else self.method.local_weight

    def feature_weight(self, depth: int) -> float:
        """Return the weight of feature mimicry at a depth; 0 for a peer that is alone."""
        return self.method.feature_weight if len(self.peers) > 1 and depth == self.depths - 1 else 0.0

    def distance_weight(self, depth: int) -> float:
        """Return the weight of mimicry of distances at a depth; 0 for a peer that is alone."""
        weight = self.method.distance_weight or 0.0
        return weight if len(self.peers) > 1 and depth == self.depths - 1 else 0.0

    def shared(self, depth: int) -> tuple[Output, ...]:
        """Return what the learners at a depth tell one another."""
        if self.method.exchange == "weights":
            return ()
        predictions: tuple[Output, ...] = ("predictions",) if self.weight(depth) else ()
        return (*predictions, "pooled") if self.feature_weight(depth) or self.distance_weight(depth) else predictions

    def outputs(self, depth: int) -> tuple[Output, ...]:
        """Return what a forward at a depth gives in a step with an exchange."""
        features: tuple[Output, ...] = ("features",) if depth < self.depths - 1 else ()
        return (*features, *self.shared(depth))

    def heard(self, place: int, depth: int, output: Output) -> tuple[str, ...]:
        """Return the names of the messages that a peer learns from: those of all others."""
        sequential = self.method.schedule == "sequential"
        return tuple(
            _name(peer.learner(depth), output, restated=sequential and other < place)
            for other, peer in enumerate(self.peers)
            if other != place
        )

    def training_programs(self, recipe: Recipe, facts: Facts) -> tuple[Program, ...]:
        """Return the programs that steps run in turn: one, or S with an exchange in the last."""
        exchanging = self._training(recipe, facts, exchanging=True)
        interval = self.method.exchange_interval
        if interval == 1 or not any(self.shared(d) or self.weight(d) for d in range(self.depths)):
            return (exchanging,)
        return (*[self._training(recipe, facts, exchanging=False)] * (interval - 1), exchanging)

    def _training(self, recipe: Recipe, facts: Facts, *, exchanging: bool) -> Program:
        rows = recipe.data.batch_size
        calls = [Call(SOURCE, "next", (), (BATCH,))]
        messages = {BATCH: images_message(recipe, facts, rows)}
        if exchanging and self.method.exchange == "weights" and self.weight(self.depths - 1):
            calls += self._weights_calls()
            messages |= self._weights_messages()
        for depth in range(self.depths):
            shared = self.shared(depth) if exchanging else ()
            for peer in self.peers:
                gives = [_name(peer.learner(depth), output) for output in (*self._features(depth), *shared)]
                calls.append(Call(peer.learner(depth), "forward", _inputs(peer, depth), tuple(gives)))
                messages |= self._given(peer, depth, gives, (*self._features(depth), *shared), recipe, facts)
            for place, peer in enumerate(self.peers):
                heard = [name for output in shared for name in self.heard(place, depth, output)]
                calls.append(Call(peer.learner(depth), "update", tuple(heard)))
                if shared and self.method.schedule == "sequential" and place < len(self.peers) - 1:
                    gives = [_name(peer.learner(depth), output, restated=True) for output in shared]
                    calls.append(Call(peer.learner(depth), "restate", _inputs(peer, depth), tuple(gives)))
                    messages |= self._given(peer, depth, gives, shared, recipe, facts)
        return Program(tuple(calls), messages, "training with exchange" if exchanging else "training")

    def _features(self, depth: int) -> tuple[Output, ...]:
        return ("features",) if depth < self.depths - 1 else ()

    def _given(
        self, peer: Peer, depth: int, names: Iterable[str], outputs: Iterable[Output], recipe: Recipe, facts: Facts
    ) -> dict[str, Message]:
        rows, dtype = recipe.data.batch_size, recipe.numerics.precision
        shapes: dict[Output, tuple[int, ...]] = {
            "features": peer.segments[depth].features,
            "predictions": task_of(recipe, facts).prediction_shape_of(peer.segments[depth].features, facts.image_shape),
            "pooled": (peer.pooled,),
        }
        return {
            name: Message(name, (((rows, *shapes[output]), dtype),))
            for name, output in zip(names, outputs, strict=True)
        }

    def weights_of_others(self, place: int) -> Mapping[str, Peer]:
        """Return the other peers, by the name of the message that brings their weights."""
        return {_weights(peer): peer for other, peer in enumerate(self.peers) if other != place}

    def _weights_calls(self) -> list[Call]:
        calls = [Call(peer.learner(0), "publish", (), (_weights(peer),)) for peer in self.peers]
        for place, peer in enumerate(self.peers):
            calls.append(Call(peer.learner(0), "adopt", tuple(self.weights_of_others(place))))
        return calls

    def _weights_messages(self) -> dict[str, Message]:
        return {_weights(peer): Message(_weights(peer), (((peer.parameters,), "float32"),)) for peer in self.peers}

    def evaluation_program(self, recipe: Recipe, facts: Facts) -> Program:
        """Return the program that scores each peer, and all together as an ensemble."""
        calls = [Call(SOURCE, "next", (), (BATCH,))]
        messages = {BATCH: evaluation_images_message(recipe, facts)}
        task = task_of(recipe, facts)
        together = len(self.peers) > 1 and task.common_score() is not None
        predictions: list[str] = []
        for peer in self.peers:
            for depth, segment in enumerate(peer.segments):
                output: Output = "predictions" if segment.is_last else "features"
                name = _name(peer.learner(depth), output)
                gives = () if segment.is_last and not together else (name,)
                phase = "score" if segment.is_last else "infer"
                calls.append(Call(peer.learner(depth), phase, _inputs(peer, depth), gives))
                if segment.is_last and task.scored == "features":
                    scored = ((recipe.data.evaluation_batch_size, peer.pooled), recipe.numerics.precision)
                    messages |= {given: Message(given, (scored,)) for given in gives}
                else:
                    messages |= {given: evaluation_features_message(recipe, given, segment) for given in gives}
                predictions += gives if segment.is_last else ()
        if together:
            calls.append(Call(self.peers[0].learner(self.depths - 1), "score_together", (BATCH, *predictions)))
        return Program(tuple(calls), messages, "evaluation")


def _name(learner: str, output: Output, *, restated: bool = False) -> str:
    return f"{learner}_{output}_restated" if restated else f"{learner}_{output}"


def _weights(peer: Peer) -> str:
    return f"{peer.learner(0)}_weights"


def _inputs(peer: Peer, depth: int) -> tuple[str, ...]:
    return (BATCH,) if depth == 0 else (BATCH, _name(peer.learner(depth - 1), "features"))

"""Settings of Deep Mutual Learning: a cohort of networks that teach one another."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from engine.errors import RecipeError
from engine.paths import absolute
from engine.recipes.backbone import Backbone
from engine.recipes.method_settings import MethodSettings, Obstacle
from engine.recipes.methods.branches import DHM, DSL, DSN, Branched, check_inside
from engine.recipes.methods.local_learning import DGL, EndToEnd, Greedy, InfoPro, PredSim, Segmented
from engine.recipes.optimizer import Optimizer
from engine.recipes.own_files import is_own
from engine.recipes.settings import PathText, Weight, left_out_unless_given, settings

Divergence = Literal["kl", "reverse_kl", "jeffreys", "jensen_shannon"]
MimicryTarget = Literal["peers", "mean_probabilities", "mean_logits"]
MimicryReduction = Literal["mean", "sum"]
# Largest sum of mimicry's weights, in weights of the labels, with which SGD is safe.
_LARGEST_SCALE = 3.0
_MOST_PEERS = 64
PeerMethod = Annotated[EndToEnd | Greedy | DGL | PredSim | InfoPro | DSN | DSL | DHM, Field(discriminator="kind")]


def _named_backbone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


@settings
class Peer:
    """One network of a cohort: what it has of its own. The recipe says what it leaves open."""

    backbone: Annotated[Backbone | None, BeforeValidator(_named_backbone)] = None
    """Its network, or just the name of one; the recipe's unless given."""
    optimizer: Optimizer | None = None
    """Its optimizer; the recipe's unless given."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Origin of its initial weights; follows from the recipe's seed and its place in the cohort unless given."""

    def with_absolute_paths(self) -> Peer:
        """Return the same with the paths of its backbone made absolute."""
        if self.backbone is None:
            return self
        return dataclasses.replace(self, backbone=self.backbone.with_absolute_paths())

    def without_weights(self) -> Peer:
        """Return the same without a file that its own backbone starts from."""
        return self if self.backbone is None else dataclasses.replace(self, backbone=self.backbone.without_weights())


def _peers(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value > _MOST_PEERS:
            raise ValueError(f"found {value:,} peers, expected at most {_MOST_PEERS}")
        return [{} for _ in range(value)]
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, (list, tuple)):
        return [{"backbone": peer} if isinstance(peer, str) else peer for peer in value]
    return value


Peers = Annotated[tuple[Peer, ...], BeforeValidator(_peers), Field(min_length=1, max_length=_MOST_PEERS)]


@settings
class DML(MethodSettings):
    """Deep Mutual Learning (Zhang et al. 2018): peers learn from the labels and from one another's predictions."""

    kind: Literal["dml"] = "dml"

    peers: Peers = (Peer(), Peer())
    """The cohort: the number K of equal peers, backbones such as wrn_28_10,resnet32, or a list of peers."""

    peer_method: PeerMethod = EndToEnd()
    """How each peer learns inside: end to end, with branches, or cut into segments with local losses, which makes
    P x K learners."""

    weight: Weight = 1.0
    """Weight lambda of learning from the others; 0 trains the peers independently."""

    schedule: Literal["simultaneous", "sequential", "codistillation"] = "simultaneous"
    """`simultaneous`: all learn from predictions made before the step. `sequential`: each updates, and restates its
    predictions for the next (Algorithm 1). `codistillation`: as simultaneous, every `exchange_interval` steps."""

    exchange_interval: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Steps S from one exchange of codistillation to the next; 1 equals simultaneous, bit for bit."""

    exchange: Literal["predictions", "weights"] = "predictions"
    """What codistillation exchanges: predictions, used in that step only, or weights, used until the next exchange."""

    target: MimicryTarget = "peers"
    """Learn from each peer, or from one teacher: the mean of their probabilities (DML_e) or of their logits."""

    reduction: MimicryReduction = "mean"
    """Average over the other peers (the paper), or add up (the released code)."""

    divergence: Divergence = "kl"
    """`kl`: KL(peer || own). `reverse_kl`. `jeffreys`: half the sum of both. `jensen_shannon`: against their middle."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Softens both distributions by T; the loss is multiplied by T * T."""

    local_weight: Weight = 0.0
    """Weight of mutual learning between the local heads at the same depth of peers that are cut into segments."""

    feature_weight: Weight = 0.0
    """Weight gamma of the squared distance between the peers' pooled features."""

    distance_weight: Weight | None = None
    """Weight of the mean squared difference between the peers' matrices of distances, of each image's pooled features
    from each other's in the batch; the peers' features may be of different widths. None, or 0, is without."""

    confidence_weight: Weight = 0.0
    """Weight beta of the confidence penalty -H(p) (Pereyra et al. 2017), a baseline that needs no peer."""

    on_divergence: Literal["leave", "stop"] = "leave"
    """When a loss of a peer is not finite: it leaves the cohort and the others finish, or all stop."""

    on_loss: Literal["continue"] | None = None
    """When the process or node of a peer is lost: the others train on without it until it is there again
    (`continue`), which changes all weights; or they wait, which changes none. Not for peers in one process."""

    _serialize = left_out_unless_given("distance_weight", "on_loss")

    @property
    def goes_on_without_lost(self) -> bool:
        """Whether the others train on while a lost network is away."""
        return self.on_loss == "continue"

    @property
    def caution(self) -> str | None:
        """What a user should know before this is trained; None if there is nothing."""
        others = len(self.peers) - 1
        scale = self.weight * (others if self.reduction == "sum" else min(others, 1))
        if scale <= _LARGEST_SCALE:
            return None
        # Rounded down, so that what is named is small enough.
        largest = math.floor(100 * _LARGEST_SCALE * self.weight / scale) / 100
        averaging_is_enough = self.reduction == "sum" and self.weight <= _LARGEST_SCALE
        smaller = "method.reduction=mean" if averaging_is_enough else f"method.weight={largest:g}"
        return (
            f"mimicry has {scale:g} times the weight of the labels (method.weight, for each other peer with "
            f"reduction=sum): under SGD that acts like a learning rate {1 + scale:g} times as large, and training may "
            f"diverge; {smaller} or a smaller learning rate avoids it"
        )

    @property
    def peer_optimizers(self) -> tuple[Optimizer | None, ...]:
        """The peers' own optimizers, None for the recipe's."""
        return tuple(peer.optimizer for peer in self.peers)

    @property
    def takes_further_terms(self) -> bool:
        """Whether a task may add to the label loss."""
        return self.peer_method.takes_further_terms

    @property
    def inside(self) -> MethodSettings:
        """How each peer learns."""
        return self.peer_method

    @property
    def inside_field(self) -> str:
        """The field of the recipe that holds `inside`."""
        return "method.peer_method"

    def with_inside(self, inside: MethodSettings) -> DML:
        """Return the same with peers that learn otherwise; raises RecipeError if peers cannot so."""
        values: dict[str, Any] = {"peer_method": inside}
        return dataclasses.replace(self, **values)

    @property
    def placement(self) -> Literal["PACK", "SPREAD"]:
        """Where learners are best off.

        Whole peers exchange a few probabilities, and each is best off with a node's memory and processors for itself;
        the learners of a peer that has several belong together like those of any network.
        """
        return "SPREAD" if isinstance(self.peer_method, EndToEnd) else "PACK"

    def networks(self, backbone: Backbone) -> tuple[Backbone, ...]:
        """Return the networks of the peers, if the recipe's is ``backbone``."""
        return tuple(peer.backbone or backbone for peer in self.peers)

    def obstacle_to_replicas(self, field: str = "method") -> Obstacle | None:
        """Return why several replicas cannot train each learner on a part of the batch; None if they can."""
        # What the images of a batch meet is what a peer does inside.
        obstacle = self.peer_method.obstacle_to_replicas(self.inside_field)
        if obstacle is not None:
            return obstacle
        if self.exchange == "weights":
            return Obstacle("only one replica would publish its weights", f"{field}.exchange=predictions")
        if self.distance_weight:
            return Obstacle("distances are between all images of a batch", f"{field}.distance_weight=0")
        if self.on_divergence != "stop":
            return Obstacle("a peer cannot leave while its replicas stay", f"{field}.on_divergence=stop")
        if self.on_loss is not None:
            return Obstacle("a peer cannot be away while its replicas stay", f"{field}.on_loss=null")
        return None

    def with_absolute_paths(self) -> DML:
        """Return the same with the paths of its peers' backbones made absolute."""
        return dataclasses.replace(self, peers=tuple(peer.with_absolute_paths() for peer in self.peers))

    def without_weights(self) -> DML:
        """Return the same without the files that its peers' own backbones start from, nor the seeds of the peers."""
        # Peers of one seed may be told apart by files alone, that of the recipe's own backbone among them.
        peers = tuple(dataclasses.replace(peer.without_weights(), seed=None) for peer in self.peers)
        return dataclasses.replace(self, peers=peers)

    @model_validator(mode="after")
    def _fields_agree(self) -> DML:
        if self.schedule != "codistillation" and (self.exchange_interval > 1 or self.exchange == "weights"):
            raise ValueError(
                f"exchange_interval={self.exchange_interval} and exchange={self.exchange} need "
                f"schedule=codistillation, found schedule={self.schedule}: set schedule=codistillation, or "
                "exchange_interval=1 and exchange=predictions"
            )
        if self.on_loss is not None and len(self.peers) == 1:
            raise ValueError("on_loss=continue is for two peers and more, found peers=1: set peers=2, or on_loss=null")
        if self.exchange == "weights" and self.distance_weight:
            raise ValueError("exchange=weights brings no features to compare: set distance_weight=0")
        if self.exchange == "weights" and (self.peer_method.kind != "end_to_end" or self.feature_weight):
            raise ValueError(
                "exchange=weights is for whole peers that learn from predictions: set peer_method.kind=end_to_end and "
                "feature_weight=0, or exchange=predictions"
            )
        inside = self.peer_method
        if self.local_weight and not isinstance(inside, Segmented):
            raise ValueError(
                "local_weight is for peers that are cut into segments: set local_weight=0, or peer_method.kind=infopro "
                "or another that cuts"
            )
        if self.local_weight and isinstance(inside, Segmented) and inside.head == "contrastive":
            raise ValueError("local_weight compares class predictions: set peer_method.head=softmax")
        if isinstance(inside, Branched):
            check_inside(inside, "peer_method")
        return self


def _own_function(name: str) -> str:
    file, _, function = name.rpartition(":")
    if file.endswith(".py") and function:
        return name
    shown = repr(name) if len(name) < 100 else f"{len(name):,} characters"
    needless = "; a teacher's run folder or exported file says which of the engine's networks it is: leave it out"
    raise ValueError(f"found {shown}, expected path/to/file.py:function of your own{'' if is_own(name) else needless}")


@settings
class Distillation(MethodSettings):
    """Learning from the labels and from a frozen teacher (Hinton et al. 2015)."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification", "segmentation")

    reads_weights: ClassVar[bool] = True

    kind: Literal["distillation"] = "distillation"

    teacher: Annotated[PathText, Field(min_length=1)] | None = None
    """The frozen network: a run folder, or a .safetensors file that `export` wrote. Must be given."""

    teacher_network: str | None = None
    """Which network of the run folder, where it has several, such as `peer1`."""

    teacher_backbone: Annotated[str, AfterValidator(_own_function)] | None = None
    """`path/to/file.py:function`, where the teacher is a network of your own: code that runs is named by the recipe,
    never by a run folder or a file of weights alone. The name of a network that ships is refused."""

    weight: Weight = 1.0
    """Weight alpha of learning from the teacher."""

    label_weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Weight of the cross-entropy with the labels; 1 - alpha in Hinton's form."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Softens both distributions by T; the loss is multiplied by T * T."""

    @property
    def takes_further_terms(self) -> bool:
        """Whether a task may add to the label loss."""
        return True

    def with_absolute_paths(self) -> Distillation:
        """Return the same with the paths of the teacher and of its code made absolute."""
        teacher, backbone = self.teacher, self.teacher_backbone
        if teacher is not None:
            teacher = str(absolute(teacher, "method.teacher", RecipeError))
        if backbone is not None:
            file, _, function = backbone.rpartition(":")
            backbone = f"{absolute(file, 'method.teacher_backbone', RecipeError)}:{function}"
        return dataclasses.replace(self, teacher=teacher, teacher_backbone=backbone)

    _serialize = left_out_unless_given("teacher_backbone")

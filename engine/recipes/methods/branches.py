"""Settings of the methods that train a network with classifiers on side branches, which are cut off afterwards."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.recipes.method_settings import MethodSettings
from engine.recipes.settings import Positive, Share, Weight, names, settings

Directions = Literal["all", "sampled", "bernoulli", "top_down", "bottom_up", "to_main"]
BranchShape = Literal["rich", "linear"]
DeepSupervisionLoss = Literal["cross_entropy", "squared_hinge"]
DeepSupervisionDecay = Literal["none", "linear", "stop"]


Forks = Annotated[tuple[str, ...], BeforeValidator(names), Field(min_length=1)]


@settings
class Branched(MethodSettings):
    """What the methods with branches share: each branch predicts classes."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("classification",)

    label_weight: Weight = 1.0
    """Weight w of each branch's own label loss."""

    measure_gradients_every: Annotated[int, Field(ge=0)] = 0
    """Every so many steps of an epoch, log how far the heads' gradients in the features that they share agree (their
    cosine); 0 for never. The weights stay the same."""


@settings
class DSN(Branched):
    """Deeply supervised nets (Lee et al. 2015): linear classifiers on hidden features, whose weight decays."""

    kind: Literal["dsn"] = "dsn"

    forks: Forks | None = None
    """Blocks whose outputs get a companion, such as layer1_2,layer2_2; the last of each stage but one unless given."""

    loss: DeepSupervisionLoss = "cross_entropy"
    """Label loss of the network and its companions: `squared_hinge` as in the released code for 10 classes; it fails
    to converge with more."""

    decay: DeepSupervisionDecay = "linear"
    """The companions' weight over the epochs: it stays, falls linearly to 0, or is 0 from `stop_at` on."""

    stop_at: Share = 0.25
    """For `stop`, the share of the epochs after which the companions are gone."""

    threshold: Annotated[float, Field(ge=0.0)] = 0.0
    """Loss gamma below which a companion no longer teaches: [loss - gamma]_+."""

    @property
    def takes_further_terms(self) -> bool:
        """Whether a task may add to the label loss: to cross-entropy only."""
        return self.loss == "cross_entropy"


@settings
class RichBranches(Branched):
    """What DSL and DHM share: branches that repeat the rest of the network in shorter or wider form."""

    num_branches: Annotated[int, Field(ge=1, le=8)] = 2
    """Branches, from the end of the network downwards: near its top, then deeper."""

    shape: BranchShape = "rich"
    """`rich` continues the network, `linear` pools and classifies at once."""

    branch_learners: bool = False
    """Whether each branch is a learner of its own, which takes features and gives back their gradient in the same
    step, so that branches can have devices of their own. The weights are the same."""

    @property
    def takes_further_terms(self) -> bool:
        """Whether a task may add to the label loss: where one learner holds the network and its branches."""
        return not self.branch_learners

    @model_validator(mode="after")
    def _gradients_are_at_hand(self) -> RichBranches:
        if self.branch_learners and self.measure_gradients_every:
            raise ValueError(
                "measure_gradients_every compares gradients that only a learner with all branches has at hand: set "
                "branch_learners=false, whose weights are the same"
            )
        return self


@settings
class DSL(RichBranches):
    """Deep supervision by rich branches with label losses alone: the baseline of dynamic hierarchical mimicking."""

    kind: Literal["dsl"] = "dsl"


@settings
class DHM(RichBranches):
    """Dynamic hierarchical mimicking (Li and Chen 2020), and DKS (Sun et al. 2019): all heads mimic one another."""

    kind: Literal["dhm"] = "dhm"

    weight: Weight = 1.0
    """Weight alpha of each mimicry loss; 0 is `dsl`."""

    temperature: Positive = 1.0
    """Softens predictions by T; the loss is multiplied by T * T."""

    directions: Directions = "all"
    """Who learns from whom: `all` (as released; DKS), `sampled` (the released code's commented-out rule, which keeps
    each direction with probability 0.665 and never none), `bernoulli` (each with chance `keep`), `top_down` (only from
    deeper heads), `bottom_up`, or `to_main` (only the network learns, from its branches)."""

    keep: Share = 0.665
    """For `bernoulli`, the chance that a direction is kept."""


Branches = Annotated[DSN | DSL | DHM, Field(discriminator="kind")]


def check_inside(branches: Branched | None, where: str) -> None:
    """Raise ValueError if branches inside another method, at the field ``where``, ask for learners of their own."""
    if isinstance(branches, RichBranches) and branches.branch_learners:
        raise ValueError(f"branch_learners=true is for a whole network alone: set {where}.branch_learners=false")

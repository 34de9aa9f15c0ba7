"""Studies at a budget at which over-fitting is real, so that what regularises can gain.

`digits`: 90 handwritten digits, which every arm learns by heart; an arm takes seconds for a seed. `colour`: the same
questions on 1,000 colour pictures, a minute for each.
"""

from __future__ import annotations

from experiments.studies import minima
from experiments.studies.study import Arm, Claim, Study

_ST, _GKT, _MKF = "Ye et al. 2022", "Tang et al. 2024", "Tang et al., MKF"
_DML, _DHM = "Zhang et al. 2018", "Li and Chen 2020"
_DATA_MIX = ("method.style=compound", "method.mixing_probability=0.5", "method.warmup_fraction=0.1")
# A penalty on confident predictions needs no peer, and is a field of cohorts all the same.
_CONFIDENCE = ("method.peers=1", "method.confidence_weight=0.1")
RATES = (0.05, 0.1, 0.2)

ALONE = {
    "plain": Arm("end_to_end_digits"),
    "label smoothing": Arm("label_smoothing_digits"),
    "confidence penalty": Arm("independent_digits", _CONFIDENCE),
    "CutMix": Arm("cutmix_digits"),
    "DataMix": Arm("mixup_digits", _DATA_MIX),
}
SUB_NETWORKS = {"ST": Arm("st_digits"), "GKT": Arm("gkt_digits"), "MKF": Arm("mkf_digits")}
BRANCHES = {"DSN": Arm("dsn_digits"), "DSL": Arm("dsl_digits"), "DHM": Arm("dhm_digits")}
# Mimicry doubles the gradient of the logits, so peers alone may try twice the rates, too.
_DOUBLED = tuple(2 * rate for rate in RATES)
_DOUBLED_RATE = {"independent peers, doubled rate": Arm("independent_digits", learning_rates=_DOUBLED)}
# It does not double the decay of the weights: twice the rate with half the decay is the same as a doubled loss.
_DOUBLED_LOSS = {
    "independent peers, doubled loss": Arm("independent_digits", ("optimizer.weight_decay=0.00025",), _DOUBLED)
}


def _cohorts(control: dict[str, Arm]) -> dict[str, Arm]:
    return {minima.ALONE: Arm("independent_digits"), **control, minima.TOGETHER: Arm("dml_digits")}


def _claims(control: dict[str, Arm]) -> tuple[Claim, ...]:
    return (
        Claim("mutual learning gains over the same networks alone", _DML, "DML", "independent peers"),
        Claim("and not by its larger gradient", _DML, "DML", *control),
        *_CLAIMS,
    )


_CLAIMS = (
    Claim("sub-networks that learn from the whole one help it", _ST, "ST", "plain"),
    Claim("so does the knowledge of groups", _GKT, "GKT", "plain"),
    Claim("so does mixed knowledge", _MKF, "MKF", "plain"),
    Claim("mixed knowledge gains over unmixed", _MKF, "MKF", "GKT"),
    Claim("and over mixed images alone", _MKF, "MKF", "DataMix"),
    Claim("rich branches gain over a network alone", _DHM, "DSL", "plain"),
    Claim("rich branches gain over linear ones", _DHM, "DSL", "DSN"),
    Claim("mimicry gains over branches", _DHM, "DHM", "DSL"),
)

DIGITS_BUDGET = (
    "data.validation_fraction=0.8",
    "data.train_limit=90",
    "data.batch_size=30",
    "backbone.name=resnet20",
    "backbone.widths=8,16,32",
    "epochs=100",
    "plan.executor=process",
    "plan.evaluate_every_epochs=100",
    "plan.checkpoint_every_steps=300",
    "plan.report_every_steps=30",
)

DIGITS = Study(
    name="digits",
    about=(
        "ResNet-20 of widths 8, 16, 32 on 90 of scikit-learn's handwritten digits (8 x 8; 400 held out, 1,297 for the "
        "test), 100 epochs, batch 30."
    ),
    arms={
        **ALONE,
        **SUB_NETWORKS,
        **BRANCHES,
        "DHM at 0.05": Arm("dhm_digits", learning_rates=(0.05,)),
        "DHM at 0.1": Arm("dhm_digits", learning_rates=(0.1,)),
        **_cohorts(_DOUBLED_RATE),
        "DML, 4 peers": Arm("dml_digits", ("method.peers=4",)),
    },
    budget=DIGITS_BUDGET,
    seeds=tuple(range(10, 20)),
    learning_rates=RATES,
    choosing_seeds=(0, 1, 2),
    draws_images=True,
    claims=(*_claims(_DOUBLED_RATE), Claim("more peers help", _DML, "DML, 4 peers", "DML")),
    further=minima.parts,
)

COLOUR = Study(
    name="colour",
    about=(
        "ResNet-20 of widths 8, 16, 32 on 1,000 of CIFAR-10's pictures shrunk to 16 x 16 (2,000 held out), 30 "
        "epochs, batch 50, no augmentation."
    ),
    arms={**ALONE, **SUB_NETWORKS, **BRANCHES, **_cohorts(_DOUBLED_LOSS)},
    budget=(
        "data.name=cifar10",
        "data.image_size=16",
        "data.validation_fraction=0.04",
        "data.train_limit=1000",
        "data.batch_size=50",
        "backbone.name=resnet20",
        "backbone.widths=8,16,32",
        "epochs=30",
        "plan.executor=process",
        "plan.evaluate_every_epochs=30",
        "plan.checkpoint_every_steps=600",
    ),
    seeds=tuple(range(10, 15)),
    needs_images=True,
    learning_rates=RATES,
    choosing_seeds=(0, 1),
    draws_images=True,
    claims=(
        *_claims(_DOUBLED_LOSS),
        Claim("linear branches gain over a network alone", _DHM, "DSN", "plain"),
    ),
)

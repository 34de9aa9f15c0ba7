"""The first experiment: a narrow ResNet-14 on scikit-learn's handwritten digits, seconds per run on one core.

    local-learning train infopro_digits

500 training and 1297 test images of 8x8 pixels, 15 epochs, batch 50. Measured accuracies, with hardware, seeds
and command, are in docs/results/digits.md.
"""

from __future__ import annotations

from typing import Any

from engine.recipes import (
    CSKD,
    DGL,
    DHM,
    DLB,
    DML,
    DSL,
    DSN,
    GKT,
    LWR,
    MKF,
    ONE,
    PSKD,
    SGD,
    ST,
    Backbone,
    Cosine,
    Data,
    DataMix,
    EndToEnd,
    Greedy,
    InfoPro,
    LabelSmoothing,
    PredSim,
    Recipe,
    StochasticDepth,
)


def _digits(name: str, method: Any, loss_scale: float = 1.0) -> Recipe:
    # On a loss times s, SGD takes the steps of s times the learning rate with the weight decay over s.
    return Recipe(
        name=name,
        method=method,
        backbone=Backbone(name="resnet14", widths=(4, 8, 16)),
        data=Data(name="digits", batch_size=50),
        optimizer=SGD(learning_rate=0.1 * loss_scale, weight_decay=5e-4 / loss_scale),
        schedule=Cosine(interval="step"),
        epochs=15,
    )


RECIPES = {
    "end_to_end_digits": lambda: _digits("end_to_end_digits", EndToEnd()),
    "greedy_digits": lambda: _digits("greedy_digits", Greedy()),
    "dgl_digits": lambda: _digits("dgl_digits", DGL()),
    "predsim_digits": lambda: _digits("predsim_digits", PredSim()),
    "infopro_digits": lambda: _digits("infopro_digits", InfoPro()),
    # Two peers that teach one another, and the same peers each for itself; then with a loss as large as mimicry's.
    "dml_digits": lambda: _digits("dml_digits", DML()),
    "independent_digits": lambda: _digits("independent_digits", DML(weight=0.0)),
    "independent_scaled_digits": lambda: _digits("independent_scaled_digits", DML(weight=0.0), loss_scale=2.0),
    # A grid: each of two peers is cut into two segments that learn locally, so four learners in all. There is no third
    # arm: mimicry reaches the last segment of each alone, and the recipe's learning rate all of them.
    "dml_infopro_digits": lambda: _digits("dml_infopro_digits", DML(peer_method=InfoPro())),
    "independent_infopro_digits": lambda: _digits("independent_infopro_digits", DML(peer_method=InfoPro(), weight=0.0)),
    # One network and its sub-networks, and what these are compared with.
    "stochastic_depth_digits": lambda: _digits("stochastic_depth_digits", StochasticDepth()),
    "st_digits": lambda: _digits("st_digits", ST()),
    "gkt_digits": lambda: _digits("gkt_digits", GKT()),
    "mkf_digits": lambda: _digits("mkf_digits", MKF()),
    "label_smoothing_digits": lambda: _digits("label_smoothing_digits", LabelSmoothing()),
    "mixup_digits": lambda: _digits("mixup_digits", DataMix(style="mixup")),
    "cutmix_digits": lambda: _digits("cutmix_digits", DataMix(style="cutmix", mixing_probability=0.5)),
    "one_digits": lambda: _digits("one_digits", ONE(ramp_epochs=5)),
    "cs_kd_digits": lambda: _digits("cs_kd_digits", CSKD()),
    "ps_kd_digits": lambda: _digits("ps_kd_digits", PSKD()),
    "lwr_digits": lambda: _digits("lwr_digits", LWR(interval=3, horizon=15)),
    "dlb_digits": lambda: _digits("dlb_digits", DLB()),
    # One network whose branches help in training and are cut off afterwards.
    "dsn_digits": lambda: _digits("dsn_digits", DSN()),
    "dsl_digits": lambda: _digits("dsl_digits", DSL()),
    "dhm_digits": lambda: _digits("dhm_digits", DHM()),
}

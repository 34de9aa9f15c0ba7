"""Searches on scikit-learn's handwritten digits: eight trials in about two minutes on two cores.

    local-learning sweep infopro_digits
    local-learning sweep k_digits

What came out of them, with hardware, seeds and budget, is in docs/results/digits-searches.md and which-k.md.
"""

from __future__ import annotations

from ray import tune

from engine.search import Sweep

SHORT = ("epochs=6",)

SWEEPS = {
    # InfoPro: number of segments K, lambda_1 and lambda_2, and the head.
    "infopro_digits": lambda: Sweep(
        name="infopro_digits",
        recipe="infopro_digits",
        space={
            "method.num_segments": tune.choice([2, 4, 7]),
            "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
            "method.classification_weight": tune.loguniform(0.1, 10.0),
            "method.head": tune.choice(["softmax", "contrastive"]),
        },
        fields=SHORT,
        scheduler="asha",
        grace_epochs=2,
    ),
    # InfoPro: schedules of lambda_1, lambda_2 and the learning rate, found by a population of eight.
    "infopro_digits_pbt": lambda: Sweep(
        name="infopro_digits_pbt",
        recipe="infopro_digits",
        space={
            "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
            "method.classification_weight": tune.loguniform(0.1, 10.0),
            "optimizer.learning_rate": tune.loguniform(0.01, 1.0),
        },
        fields=("epochs=8", "method.num_segments=4"),
        scheduler="pbt",
        perturb_every_epochs=2,
    ),
    # Mixed knowledge fraction: beta, alpha, the number of groups T, and the rule.
    "mkf_digits": lambda: Sweep(
        name="mkf_digits",
        recipe="mkf_digits",
        space={
            "method.distillation_weight": tune.loguniform(0.25, 4.0),
            "method.averaging_weight": tune.uniform(0.2, 1.0),
            "method.num_groups": tune.choice([2, 3, 4]),
            "method.fraction": tune.choice(["shared_clipped", "exact", "none"]),
        },
        fields=SHORT,
        searcher="tpe",
    ),
    # Mutual learning: the cohort's size and networks, and the temperature.
    "dml_digits": lambda: Sweep(
        name="dml_digits",
        recipe="dml_digits",
        space={
            "method.peers": tune.choice(["2", "3", "resnet14,resnet8"]),
            "method.temperature": tune.choice([1.0, 2.0, 4.0]),
        },
        fields=("epochs=4",),
    ),
    # Dynamic hierarchical mimicking: its weight.
    "dhm_digits": lambda: Sweep(
        name="dhm_digits",
        recipe="dhm_digits",
        space={"method.weight": tune.loguniform(0.05, 5.0)},
        fields=SHORT,
        searcher="tpe",
    ),
    # Which K? Accuracy against the memory of the learner that holds most, and against speed.
    "k_digits": lambda: Sweep(
        name="k_digits",
        recipe="infopro_digits",
        space={
            "method.kind": tune.choice(["infopro", "greedy"]),
            "method.num_segments": tune.choice([1, 2, 4, 7]),
        },
        against=("memory_bytes", "images_per_second"),
        searcher="grid",
    ),
}

"""Further questions at the budget of the study of digits, at which over-fitting is real.

`variants`: rules of mixed knowledge and schedules of mutual learning. `segments`: the order of local methods as K
grows. `labels`: what mutual learning gains when few images have labels. `dhm_stability`: why dynamic hierarchical
mimicking scatters between seeds at the learning rate of its paper.
"""

from __future__ import annotations

from experiments.studies import stability
from experiments.studies.overfitting import DIGITS, DIGITS_BUDGET, RATES
from experiments.studies.study import Arm, Claim, Study

_INFOPRO, _DML, _MKF = "Wang et al. 2021", "Zhang et al. 2018", "Tang et al., MKF"

VARIANTS = Study(
    name="variants",
    about=DIGITS.about,
    arms={
        "MKF, none": Arm("mkf_digits", ("method.fraction=none",)),
        "MKF, linear_clipped": Arm("mkf_digits", ("method.fraction=linear_clipped",)),
        "MKF, exact": Arm("mkf_digits", ("method.fraction=exact",)),
        "MKF, shared_clipped (the default)": Arm("mkf_digits"),
        "DML, simultaneous": Arm("dml_digits"),
        "DML, sequential": Arm("dml_digits", ("method.schedule=sequential",)),
    },
    budget=DIGITS_BUDGET,
    seeds=DIGITS.seeds,
    learning_rates=RATES,
    choosing_seeds=DIGITS.choosing_seeds,
    draws_images=True,
    claims=(
        Claim("exact fractions gain over none", _MKF, "MKF, exact", "MKF, none"),
        Claim("linear fractions gain over none", _MKF, "MKF, linear_clipped", "MKF, none"),
        Claim("simultaneous learning gains over sequential", _DML, "DML, simultaneous", "DML, sequential"),
    ),
)

SEGMENTS = Study(
    name="segments",
    about=(
        "ResNet-20 of widths 8, 16, 32, cut into K segments that learn locally, on 90 of scikit-learn's handwritten "
        "digits (400 held out, 1,297 for the test), 100 epochs, batch 30."
    ),
    arms={
        "end-to-end": Arm("end_to_end_digits"),
        **{
            f"{title}, K = {segments}": Arm(recipe, (f"method.num_segments={segments}",))
            for segments in (2, 4)
            for title, recipe in (("greedy", "greedy_digits"), ("DGL", "dgl_digits"), ("InfoPro", "infopro_digits"))
        },
    },
    budget=DIGITS_BUDGET,
    seeds=DIGITS.seeds,
    learning_rates=RATES,
    choosing_seeds=DIGITS.choosing_seeds,
    draws_images=True,
    claims=(
        Claim("greedy learning loses as K grows", _INFOPRO, "greedy, K = 2", "greedy, K = 4"),
        Claim("InfoPro gains over greedy learning, K = 2", _INFOPRO, "InfoPro, K = 2", "greedy, K = 2"),
        Claim("InfoPro gains over greedy learning, K = 4", _INFOPRO, "InfoPro, K = 4", "greedy, K = 4"),
        Claim("InfoPro gains over larger heads alone, K = 2", _INFOPRO, "InfoPro, K = 2", "DGL, K = 2"),
        Claim("InfoPro gains over larger heads alone, K = 4", _INFOPRO, "InfoPro, K = 4", "DGL, K = 4"),
    ),
)

# 400 training images in batches of 20, all or the labelled ones alone: so many epochs make 600 steps. A tenth of them
# are 39, so a batch of 40 would be too large.
_EPOCHS = {0.1: 300, 0.2: 150, 0.5: 60, 1.0: 30}


def _labelled(recipe: str, share: float, images: str) -> Arm:
    trained_on = share if images == "drop" else 1.0
    fields = (f"data.labelled_fraction={share}", f"data.unlabelled={images}", f"epochs={_EPOCHS[trained_on]}")
    return Arm(recipe, fields)


def _share_arms(share: float) -> dict[str, Arm]:
    return {
        f"independent, {share:.0%} labelled": _labelled("independent_digits", share, "drop"),
        f"DML, {share:.0%} labelled": _labelled("dml_digits", share, "drop"),
        f"DML, {share:.0%} labelled, all images": _labelled("dml_digits", share, "use"),
    }


def _share_claims(share: float) -> tuple[Claim, ...]:
    alone, labelled, all_images = _share_arms(share)
    return (
        Claim("mutual learning gains where few images have labels", _DML, labelled, alone),
        Claim("and more with the unlabelled ones", _DML, all_images, labelled),
    )


_SHARES = (0.1, 0.2, 0.5)
LABELS = Study(
    name="labels",
    about=(
        "Two ResNet-20 of widths 8, 16, 32 on 400 of scikit-learn's handwritten digits (100 held out, 1,297 for the "
        "test), of which some have labels, 600 steps of batch 20."
    ),
    arms={label: arm for share in _SHARES for label, arm in _share_arms(share).items()},
    budget=(
        "data.validation_fraction=0.2",
        "data.batch_size=20",
        "backbone.name=resnet20",
        "backbone.widths=8,16,32",
        "plan.executor=process",
        "plan.evaluate_every_epochs=300",
        "plan.checkpoint_every_steps=600",
        "plan.report_every_steps=60",
    ),
    seeds=DIGITS.seeds,
    learning_rates=RATES,
    choosing_seeds=DIGITS.choosing_seeds,
    draws_images=True,
    claims=tuple(claim for share in _SHARES for claim in _share_claims(share)),
)

DHM_STABILITY = Study(
    name="dhm_stability",
    about=(
        "Dynamic hierarchical mimicking at a learning rate of 0.1, ResNet-20 of widths 8, 16, 32, 90 of scikit-learn's "
        "handwritten digits (400 held out, 1,297 for the test), 100 epochs, batch 30."
    ),
    arms={
        "DHM": Arm("dhm_digits"),
        "DSL: no mimicry": Arm("dsl_digits"),
        "mimicry of weight 0.3": Arm("dhm_digits", ("method.weight=0.3",)),
        "temperature 3": Arm("dhm_digits", ("method.temperature=3",)),
        # With three heads mimicry scales the gradient of a head's logits by 1 + weight * (3 - 1).
        "learning rate 0.1 / 3": Arm("dhm_digits", ("optimizer.learning_rate=0.0333",)),
        "10 epochs of warm-up": Arm("dhm_digits", ("schedule.warmup_epochs=10",)),
    },
    budget=DIGITS_BUDGET,
    seeds=tuple(range(10, 15)),
    draws_images=True,
    further=stability.parts,
)

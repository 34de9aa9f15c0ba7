"""A study whose runs take a second."""

from __future__ import annotations

from experiments.studies.study import Arm, Claim, Study

TINY = Study(
    name="tiny",
    about="A network that learns next to nothing.",
    arms={"plain": Arm("end_to_end_digits"), "peers": Arm("independent_digits", learning_rates=(0.1,))},
    budget=(
        "data.validation_fraction=0.8",
        "data.train_limit=20",
        "data.test_limit=40",
        "data.batch_size=20",
        "backbone.name=resnet8",
        "backbone.widths=4,4,4",
        "epochs=2",
        "plan.executor=process",
    ),
    seeds=(3, 4),
    learning_rates=(0.05, 1e30),
    choosing_seeds=(0,),
    draws_images=True,
    claims=(Claim("peers alone gain", "nobody", "peers", "plain"),),
)

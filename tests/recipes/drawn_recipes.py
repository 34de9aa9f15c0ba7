"""What do the tests of recipes of all kinds share: strategies of hypothesis that draw recipes and plans."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.recipes import (
    DGL,
    SGD,
    Adam,
    AdamW,
    Augmentation,
    Backbone,
    Constant,
    Cosine,
    Data,
    EndToEnd,
    Exponential,
    Greedy,
    InfoPro,
    Numerics,
    Plan,
    Polynomial,
    PredSim,
    Ramp,
    Recipe,
    RMSProp,
    Schedule,
    Step,
)

small = st.floats(1e-6, 10, allow_nan=False)
share = st.floats(0, 0.99)
count = st.integers(1, 2**40)
weights = st.floats(0, 100)
ramps = st.builds(Ramp, first=weights, last=weights)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
cuts = st.one_of(
    st.sampled_from(["published", "published_memory", "balanced_layers", "measured"]),
    st.lists(names, max_size=4).map(tuple),
)
segmented = {"num_segments": st.integers(1, 99), "cuts": cuts}
heads = st.sampled_from(["softmax", "contrastive"])
methods = st.one_of(
    st.just(EndToEnd()),
    st.builds(Greedy, head=heads, **segmented),
    st.builds(DGL, **segmented),
    st.builds(PredSim, similarity_weight=st.floats(0, 1), prediction_features=count, **segmented),
    st.builds(InfoPro, head=heads, reconstruction_weight=ramps, classification_weight=ramps, **segmented),
)
betas = st.tuples(share, share)
optimizers = st.one_of(
    st.builds(SGD, learning_rate=small, momentum=st.floats(0.01, 0.99), nesterov=st.booleans(), weight_decay=weights),
    st.builds(Adam, learning_rate=small, betas=betas, epsilon=small, weight_decay=weights),
    st.builds(AdamW, learning_rate=small, betas=betas, epsilon=small, weight_decay=weights),
    st.builds(RMSProp, learning_rate=small, alpha=share, momentum=share, epsilon=small, weight_decay=weights),
)


def schedules(learning_rate: float) -> st.SearchStrategy[Schedule]:
    """Return schedules that never lead above a learning rate."""
    # What is numbered from 0 is epochs.
    counts = st.sampled_from([("epoch", 0), ("epoch", 1), ("step", 1)])
    below = st.floats(0, learning_rate)
    return st.one_of(
        st.just(Constant()),
        st.builds(
            lambda count, **fields: Cosine(interval=count[0], counts_from=count[1], **fields),
            counts,
            warmup_epochs=st.integers(0, 99),
            warmup_learning_rate=below,
        ),
        st.builds(Step, milestones=st.sets(st.integers(1, 999)).map(lambda found: tuple(sorted(found))), factor=small),
        st.builds(Polynomial, power=small, minimum=below),
        st.builds(Exponential, factor=st.floats(0.01, 1)),
    )


updates = optimizers.flatmap(lambda chosen: st.tuples(st.just(chosen), schedules(chosen.learning_rate)))
texts = st.text(min_size=1, max_size=12)
options = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.lists(st.one_of(st.integers(-9, 9), st.text(max_size=4)), max_size=3).map(tuple),
)
backbones = st.builds(
    Backbone,
    name=texts,
    shortcut=st.sampled_from([None, "projection", "identity"]),
    widths=st.one_of(st.none(), st.lists(st.integers(1, 999), max_size=4).map(tuple)),
    stem=st.sampled_from([None, "cifar", "imagenet"]),
    dropout=st.one_of(st.none(), share),
    weights=st.one_of(st.none(), st.text(max_size=12)),
    options=st.dictionaries(texts, options, max_size=3),
)
statistics = st.integers(1, 3).flatmap(
    lambda channels: st.tuples(
        st.lists(st.floats(-1, 1), min_size=channels, max_size=channels).map(tuple),
        st.lists(small, min_size=channels, max_size=channels).map(tuple),
    )
)
data_sets = st.builds(
    lambda given, **fields: Data(mean=given[0], std=given[1], **fields),
    st.one_of(st.just((None, None)), statistics),
    name=st.sampled_from(["digits", "cifar10", "svhn", "stl10", "folder", "parquet", "synthetic"]),
    root=st.one_of(st.none(), st.text(max_size=12)),
    download=st.booleans(),
    batch_size=count,
    train_limit=st.one_of(st.none(), count),
    validation_fraction=share,
    subset_seed=st.integers(0, 2**62),
    image_size=st.one_of(st.none(), st.integers(4, 1024)),
    label_column=st.one_of(st.none(), texts),
    num_classes=st.integers(2, 10**6),
    augmentation=st.builds(
        Augmentation,
        crop_padding=st.integers(0, 64),
        padding_mode=st.sampled_from(["reflect", "zeros"]),
        flip=st.booleans(),
        color_jitter=st.floats(0, 1),
    ),
)
processing = st.fixed_dictionaries(
    {
        "device": st.sampled_from(["auto", "cpu", "cuda"]),
        "threads": st.integers(1, 1024),
        "deterministic": st.booleans(),
        "precision": st.sampled_from(["float32", "bfloat16", "float16"]),
        "channels_last": st.booleans(),
    }
)
# What is compiled is not run again block by block.
in_memory = st.sampled_from([{}, {"compile": True}, {"recompute": "blocks"}, {"recompute": 1}, {"recompute": 7}])
numerics = st.builds(lambda fields, kept: Numerics(**fields, **kept), processing, in_memory)
recipes = st.builds(
    lambda update, **fields: Recipe(optimizer=update[0], schedule=update[1], **fields),
    updates,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
    method=methods,
    backbone=backbones,
    data=data_sets,
    epochs=count,
    seed=st.integers(0, 2**31 - 1),
    numerics=numerics,
)


plans = st.builds(
    Plan,
    executor=st.sampled_from(["ray", "process"]),
    address=st.one_of(st.none(), texts),
    cpus_per_learner=st.one_of(st.none(), st.floats(0, 99)),
    gpus_per_learner=st.one_of(st.none(), st.floats(0, 9)),
    placement=st.sampled_from([None, "PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
    window=st.one_of(st.none(), st.integers(1, 256)),
    start_timeout_seconds=small,
    checkpoint_every_steps=st.one_of(st.none(), count),
    keep_checkpoints=count,
)

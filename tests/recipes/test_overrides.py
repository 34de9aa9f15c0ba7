"""Do overrides change what they name, and say everything that is wrong at once?"""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import RecipeError
from engine.recipes import (
    DGL,
    SGD,
    Adam,
    AdamW,
    Backbone,
    Constant,
    Cosine,
    Data,
    EndToEnd,
    Greedy,
    InfoPro,
    Plan,
    Polynomial,
    Ramp,
    Recipe,
    RMSProp,
    Step,
    apply_overrides,
    recipe_to_dict,
)


def start(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "start",
        "method": InfoPro(num_segments=4, head="contrastive"),
        "backbone": Backbone(name="resnet14"),
        "data": Data(name="digits"),
    }
    return Recipe(**(fields | changes))


def changed(*words: str, recipe: Recipe | None = None) -> Recipe:
    return apply_overrides(recipe or start(), Plan(), words)[0]


def problems(*words: str, recipe: Recipe | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        changed(*words, recipe=recipe)
    return str(caught.value).splitlines()


def test_no_words_change_nothing() -> None:
    recipe, plan = start(), Plan(window=3)
    assert apply_overrides(recipe, plan, []) == (recipe, plan)


def test_only_the_named_fields_change() -> None:
    before = recipe_to_dict(start())
    after = recipe_to_dict(changed("epochs=3", "data.augmentation.flip=true", "optimizer.learning_rate=0.5"))
    assert (after["epochs"], after["data"]["augmentation"]["flip"], after["optimizer"]["learning_rate"]) == (
        3,
        True,
        0.5,
    )
    before["epochs"], before["data"]["augmentation"]["flip"], before["optimizer"]["learning_rate"] = 3, True, 0.5
    assert after == before


def test_what_was_given_is_not_written_to() -> None:
    recipe, plan = start(), Plan()
    before = recipe_to_dict(recipe)
    apply_overrides(recipe, plan, ["backbone.options.depth=3", "plan.window=9", "data.augmentation.flip=true"])
    assert recipe_to_dict(recipe) == before
    assert plan == Plan()


def test_all_problems_are_told_at_once() -> None:
    lines = problems("epoch=3", "data.batchsize=4", "seed=-1", "optimizer.learning_rate=0", "plan.windw=2", "word")
    assert len(lines) == 6
    told = "\n".join(lines)
    for part in ("epoch:", "data.batchsize:", "seed:", "optimizer.learning_rate:", "plan.windw:", "word:"):
        assert part in told


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("epoch=3", "epochs"),
        ("data.batchsize=3", "data.batch_size"),
        ("method.segments=3", "method.num_segments"),
        ("batch_size=3", "data.batch_size"),
        ("learning_rate=3", "optimizer.learning_rate"),
        ("recipe.epochs=3", "epochs"),
        ("window=3", "plan.window"),
        ("plan.windw=3", "plan.window"),
        ("numerics.precison=bfloat16", "numerics.precision"),
        ("method.reconstruction_weight.frst=1", "method.reconstruction_weight.first"),
        ("data.augmentation.crop_paddin=2", "data.augmentation.crop_padding"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(word: str, nearest: str) -> None:
    (line,) = problems(word)
    assert line == f"{word.partition('=')[0]}: there is no such field; did you mean {nearest!r}?"


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("method.kind=gredy", "greedy"),
        ("optimizer.kind=adm", "adam"),
        ("schedule.kind=cosin", "cosine"),
        ("data.name=cifar1", "cifar10"),
        ("method.head=softmx", "softmax"),
        ("plan.executor=rey", "ray"),
        ("numerics.precision=bfloat", "bfloat16"),
    ],
)
def test_a_wrong_choice_gets_the_nearest_right_one(word: str, nearest: str) -> None:
    (line,) = problems(word)
    name, _, value = word.partition("=")
    assert line.startswith(f"{name}: found {value!r}")
    assert line.endswith(f"did you mean {nearest!r}?")


def test_a_far_choice_lists_what_there_is() -> None:
    (line,) = problems("method.kind=backpropagation")
    for kind in ("dgl", "end_to_end", "greedy", "infopro", "predsim"):
        assert kind in line


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("epochs=0", "0"),
        ("epochs=1.5", "1.5"),
        ("epochs=many", "'many'"),
        ("epochs=null", "None"),
        ("epochs=[1]", "[1]"),
        ("seed=2147483648", "2147483648"),
        ("optimizer.learning_rate=NaN", "nan"),
        ("optimizer.learning_rate=nan", "'nan'"),
        ("optimizer.learning_rate=Infinity", "inf"),
        ("optimizer.learning_rate=-Infinity", "-inf"),
        ("optimizer.learning_rate=1e999", "inf"),
        ("optimizer.learning_rate=0", "0"),
        ("optimizer.momentum=1", "1"),
        ("optimizer.weight_decay=[1, 2]", "[1, 2]"),
        ("data.augmentation.flip=maybe", "'maybe'"),
        ("data.validation_fraction=1", "1"),
        ("method.num_segments=0", "0"),
        ("name=two words", "'two words'"),
        ("schedule.counts_from=2", "2"),
        ("plan.window=0", "0"),
        ("plan.keep_checkpoints=0", "0"),
        ("plan.start_timeout_seconds=NaN", "nan"),
        ("plan.cpus_per_learner=-1", "-1"),
    ],
)
def test_a_wrong_value_is_refused_and_shown(word: str, found: str) -> None:
    (line,) = problems(word)
    assert line.startswith(f"{word.partition('=')[0]}: found {found}; ")


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("optimizer.momentum=0", "nesterov needs momentum above 0"),
        ("data.mean=[0.5]", "mean and std belong together"),
        ("data.name=synthetic", "num_classes is required"),
    ],
)
def test_a_broken_rule_between_fields_is_told(word: str, rule: str) -> None:
    (line,) = problems(word)
    assert rule in line
    assert line.startswith(word.partition(".")[0])


def test_two_crops_are_refused() -> None:
    (line,) = problems("data.augmentation.crop_padding=4", "data.augmentation.random_resized_crop=true")
    assert "two ways to crop" in line


def test_milestones_must_increase() -> None:
    (line,) = problems("schedule.kind=step", "schedule.milestones=[3, 2]")
    assert "milestones must increase, found [3, 2]" in line


def test_a_word_without_value_is_refused() -> None:
    assert problems("epochs", "=3") == [
        "epochs: expected field=value, as in epochs=2",
        "=3: expected field=value, as in epochs=2",
    ]


def test_a_field_given_twice_is_refused() -> None:
    assert problems("epochs=2", "epochs=3") == ["epochs: given twice"]
    assert problems("method.kind=dgl", "method.kind=greedy") == ["method.kind: given twice"]
    assert problems("plan.window=2", "plan.window=2") == ["plan.window: given twice"]


def test_a_whole_part_cannot_be_a_number() -> None:
    (line,) = problems("method=1")
    assert line.startswith("method: found 1;")


def test_plan_fields_go_to_the_plan() -> None:
    words = ["plan.executor=process", "plan.window=5", "plan.cpus_per_learner=0.5", "plan.address=auto"]
    recipe, plan = apply_overrides(start(), Plan(keep_checkpoints=7), words)
    assert recipe == start()
    assert plan == Plan(executor="process", window=5, cpus_per_learner=0.5, address="auto", keep_checkpoints=7)


@pytest.mark.parametrize(
    ("text", "ramp"),
    [
        ("5", Ramp(first=5, last=5)),
        ("0.5", Ramp(first=0.5, last=0.5)),
        ("5,0", Ramp(first=5, last=0)),
        ("5, 0.5", Ramp(first=5, last=0.5)),
        ("[5, 0]", Ramp(first=5, last=0)),
        ('{"first": 5, "last": 1}', Ramp(first=5, last=1)),
    ],
)
def test_a_ramp_is_one_number_or_two(text: str, ramp: Ramp) -> None:
    method = changed(f"method.reconstruction_weight={text}").method
    assert method.reconstruction_weight == ramp
    assert method.classification_weight == Ramp(first=1, last=1)


def test_one_end_of_a_ramp_can_be_changed() -> None:
    assert changed("method.reconstruction_weight.last=3").method.reconstruction_weight == Ramp(first=1, last=3)


@pytest.mark.parametrize("text", ["5,0,1", "nan", "NaN,1", "-1", "1,-1", "true", "five", "[]", "null"])
def test_a_wrong_ramp_is_refused(text: str) -> None:
    assert all(
        line.startswith("method.reconstruction_weight") for line in problems(f"method.reconstruction_weight={text}")
    )


def test_a_ramp_is_linear_over_the_local_losses() -> None:
    ramp = Ramp(first=6, last=1)
    assert [ramp.at(segment, 4) for segment in range(3)] == [6, 3.5, 1]
    assert [ramp.at(segment, 3) for segment in range(2)] == [6, 1]
    assert ramp.at(0, 2) == 6
    assert Ramp(first=5, last=0).at(6, 8) == 0


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("published", "published"),
        ("published_memory", "published_memory"),
        ("balanced_layers", "balanced_layers"),
        ("layer1_2,layer2_1", ("layer1_2", "layer2_1")),
        ("layer1_2, layer2_1", ("layer1_2", "layer2_1")),
        ("layer1_2", ("layer1_2",)),
        ("stem", ("stem",)),
        ('["stem", "layer1_0"]', ("stem", "layer1_0")),
    ],
)
def test_cuts_are_a_rule_or_names_of_blocks(text: str, cuts: str | tuple[str, ...]) -> None:
    assert changed(f"method.cuts={text}").method.cuts == cuts


def test_a_misspelt_rule_for_cuts_is_not_taken_for_a_block() -> None:
    (line,) = problems("method.cuts=pulished")
    assert line.startswith("method.cuts: found 'pulished'")
    assert line.endswith("did you mean 'published'?")


def test_another_method_keeps_what_both_have() -> None:
    recipe = start(method=InfoPro(num_segments=8, cuts=("layer1_0",), head="contrastive"))
    assert changed("method.kind=greedy", recipe=recipe).method == Greedy(
        num_segments=8, cuts=("layer1_0",), head="contrastive"
    )
    assert changed("method.kind=dgl", recipe=recipe).method == DGL(num_segments=8, cuts=("layer1_0",))
    assert changed("method.kind=end_to_end", recipe=recipe).method == EndToEnd()
    assert changed("method.kind=infopro", recipe=recipe) == recipe


def test_a_change_of_kind_comes_first_wherever_it_stands() -> None:
    words = ["optimizer.betas=[0.8, 0.9]", "optimizer.kind=adam", "optimizer.learning_rate=0.01"]
    expected = Adam(learning_rate=0.01, betas=(0.8, 0.9), weight_decay=1e-4)
    for order in (words, words[::-1]):
        assert changed(*order).optimizer == expected


@pytest.mark.parametrize(
    ("words", "part", "expected"),
    [
        (("optimizer.kind=adamw",), "optimizer", AdamW(learning_rate=0.3, weight_decay=1e-4)),
        (("optimizer.kind=rmsprop",), "optimizer", RMSProp(learning_rate=0.3, momentum=0.9, weight_decay=1e-4)),
        (("schedule.kind=constant",), "schedule", Constant()),
        (("schedule.kind=polynomial", "schedule.power=2"), "schedule", Polynomial(power=2)),
        (
            ("schedule.kind=step", "schedule.milestones=[80, 120]"),
            "schedule",
            Step(milestones=(80, 120), warmup_epochs=10),
        ),
    ],
)
def test_optimizers_and_schedules_can_be_exchanged(words: tuple[str, ...], part: str, expected: Any) -> None:
    recipe = start(optimizer=SGD(learning_rate=0.3), schedule=Cosine(warmup_epochs=10))
    assert getattr(changed(*words, recipe=recipe), part) == expected


def test_a_new_kind_says_which_field_it_lacks() -> None:
    assert problems("schedule.kind=step") == ["schedule.milestones: is missing, and has no default"]


def test_a_field_of_the_old_kind_is_gone() -> None:
    (line,) = problems("method.kind=dgl", "method.head=softmax")
    assert line.startswith("method.head: there is no such field")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("method.kind=dgl", "method.head=softmax"), "'method.head'"),
        (("method.kind=end_to_end", "method.num_segments=3"), "'method.num_segments'"),
        (("optimizer.kind=adam", "optimizer.momentum=0.5"), "'optimizer.momentum'"),
    ],
)
def test_a_field_is_never_suggested_for_itself(words: tuple[str, ...], wrong: str) -> None:
    assert wrong not in problems(*words)[0]


def test_a_short_name_is_sought_among_its_neighbours() -> None:
    assert "learning_rate" in problems("optimizer.lr=0.1")[0]


@pytest.mark.parametrize(
    ("word", "value"),
    [("data.root=null", None), ("data.root=None", None), ("data.root=/a/b c", "/a/b c"), ("data.root=2024", "2024")],
)
def test_text_is_taken_as_it_is(word: str, value: str | None) -> None:
    assert changed(word).data.root == value


@pytest.mark.parametrize(("word", "value"), [("data.root=1.10", "1.10"), ("data.root=1e5", "1e5")])
def test_text_that_looks_like_a_number_stays_text(word: str, value: str) -> None:
    assert changed(word).data.root == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("false", False), ("False", False)])
def test_switches_read_both_spellings(text: str, value: bool) -> None:
    assert changed(f"numerics.channels_last={text}").numerics.channels_last is value


def test_options_of_ones_own_backbone_can_be_given() -> None:
    words = ["backbone.name=net.py:make", "backbone.options.depth=3", "backbone.options.wide=true"]
    assert changed(*words).backbone.options == {"depth": 3, "wide": True}


def test_tuples_are_given_in_brackets() -> None:
    assert changed("backbone.widths=[4, 8, 16]").backbone.widths == (4, 8, 16)


@pytest.mark.parametrize("word", ["method=infopro", "optimizer=adam", "schedule=cosine"])
def test_a_kind_without_the_word_kind_is_told_how_it_is_said(word: str) -> None:
    name, kind = word.split("=")
    assert problems(word) == [f"{word}: expected {name}.kind={kind}"]


@pytest.mark.parametrize(("word", "value"), [("none", "none"), ("blocks", "blocks"), ("1", 1), ("4", 4)])
def test_what_is_run_again_is_a_word_or_a_number_of_blocks(word: str, value: str | int) -> None:
    numerics = changed(f"numerics.recompute={word}").numerics
    assert numerics.recompute == value
    assert numerics.recomputed_blocks == {"none": 0, "blocks": 1}.get(word, value)


@pytest.mark.parametrize("word", ["0", "-1", "true", "2.5", "2,3", "5000", "null", "Blocks", "everything"])
def test_what_cannot_be_run_again_is_refused_in_one_line(word: str) -> None:
    with pytest.raises(RecipeError) as caught:
        changed(f"numerics.recompute={word}")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("numerics.recompute: found ")
    assert "expected 'none', 'blocks', or a number of blocks from 1 to 4096" in line


def test_a_compiled_network_is_not_run_again_block_by_block() -> None:
    with pytest.raises(RecipeError, match=r"numerics\.recompute=2 .*numerics\.compile=true .*leave one of the two out"):
        changed("numerics.recompute=2", "numerics.compile=true")

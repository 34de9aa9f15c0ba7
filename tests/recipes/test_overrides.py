"""Do overrides change what they name, and say everything that is wrong at once?"""

from __future__ import annotations

import pytest

from engine.errors import RecipeError
from engine.recipes import Plan, apply_overrides, recipe_to_dict
from tests.recipes.overridden import changed, problems, start


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

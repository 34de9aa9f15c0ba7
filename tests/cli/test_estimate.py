"""Does `estimate` print tables that can be read, JSON that can be used, and errors that help?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import Plan, apply_overrides, load_recipe


def test_tables_of_every_number_of_segments_are_printed(command: Any) -> None:
    answer = command("estimate", "infopro_digits", "--k", "1,2,3", "--gpu-memory", "1MB")
    assert answer.code == 0
    for said in ("segment2", "balanced_memory", "balanced_time", "in turn", "data.batch_size=", "digits"):
        assert said in answer.out
    assert max(map(len, answer.out.splitlines())) <= 120
    assert list(Path().iterdir()) == []


def test_the_same_as_json(command: Any) -> None:
    values = command("estimate", "infopro_digits", "--k", "2", "--gpus", "1", "--json").json
    (team,) = values["teams"]
    assert team["devices"] == [["segment0", "segment1"]]
    assert sum(learner["time_share"] for learner in team["learners"]) == pytest.approx(1.0)
    assert team["messages"]["features0"] > 0
    assert {cut["rule"] for cut in values["cuts"]} == {"balanced_layers", "balanced_memory", "balanced_time"}


@pytest.mark.parametrize("profile", [(), ("--profile",)])
def test_measured_cuts_are_said_to_be_chosen_later(command: Any, profile: tuple[str, ...]) -> None:
    words = ("estimate", "infopro_digits", "method.cuts=measured", "--k", "2", *profile)
    answer = command(*words, "--gpu-memory", "1GB")
    assert answer.code == 0
    (said,) = (line for line in answer.out.splitlines() if line.startswith("cuts: method.cuts=measured is timed"))
    assert ("starts, and below now; the" if profile else "starts (--profile: now); the") in said
    assert max(map(len, answer.out.splitlines())) <= 120
    # The recipe cuts so already.
    assert "the smallest: method.num_segments=2\n" in answer.out
    values = command(*words, "--json").json
    assert [team["cuts"] for team in values["teams"]] == ["balanced_time"]
    measured = [cut for cut in values["cuts"] if cut["rule"] == "measured"]
    assert len(measured) == len(profile)
    for cut in measured:
        assert len(cut["blocks"]) == 1
        assert command("train", "infopro_digits", f"method.cuts={cut['blocks'][0]}", "--dry-run").code == 0


# As greedy, by a METHOD that makes its learners itself.
OWN = """
import dataclasses

from engine.methods.greedy import METHOD as greedy
from engine.recipes import Greedy, Segmented
from engine.recipes.settings import settings


@settings
class Own(Segmented):
    pass


def plain(recipe):
    method = Greedy(num_segments=recipe.method.num_segments, cuts=recipe.method.cuts)
    return dataclasses.replace(recipe, method=method)


class Itself:
    def team(self, recipe, facts):
        return greedy.team(plain(recipe), facts)

    def build_learner(self, recipe, facts, *rest):
        return greedy.build_learner(plain(recipe), facts, *rest)


METHOD = Itself()
"""


def test_a_method_that_makes_its_learners_is_estimated_without_other_cuts(command: Any) -> None:
    Path("own.py").write_text(OWN)
    small = ("backbone.name=resnet8", "data.train_limit=40", "data.batch_size=20", "--k", "1,2")
    words = ("estimate", "greedy_digits", "method.kind=own.py:Own", *small)
    answer = command(*words, "--gpu-memory", "1GB")
    assert answer.code == 0, answer.err
    said = "own.py:Own: its METHOD makes learners itself, so its segments cannot be looked at one by one"
    assert "\nleft out: the comparison of cuts: method.kind=" in answer.out and said in answer.out
    assert "the fastest that fits on one device" in answer.out
    own, greedy = (command(*words[:2], *kind, *words[3:], "--json").json for kind in (words[2:3], ()))
    assert [team["learners"] for team in own["teams"]] == [team["learners"] for team in greedy["teams"]]
    assert own["cuts"] == [] and greedy["cuts"]
    refused = command(*words, "--profile")
    assert refused.code == 2 and said in refused.err and refused.err.rstrip().endswith("leave --profile out")


def test_peers_with_a_backbone_that_reads_numbers_are_estimated(command: Any) -> None:
    Path("net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make(num_classes, image_shape):\n"
        "    rate = torch.linspace(0, 0.1, 4)[3].item()\n"
        "    body = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3), nn.ReLU(), nn.Dropout(rate))\n"
        "    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
        "    return nn.Sequential(body, end)\n"
    )
    answer = command("estimate", "dml_digits", "backbone.name=net.py:make", "backbone.widths=null", "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["teams"][0]["learners"]) == 2


def test_a_cohort_has_a_row_for_each_peer(command: Any) -> None:
    answer = command("estimate", "dml_digits", "--json")
    assert answer.code == 0
    assert {learner["name"] for learner in answer.json["teams"][0]["learners"]} >= {"peer0", "peer1"}


def test_replicas_have_a_part_of_the_batch_each(command: Any) -> None:
    words = ("estimate", "infopro_digits", "--k", "2", "data.batch_size=40", "--json")
    (whole,), (half,) = (command(*words, *more).json["teams"] for more in ((), ("plan.replicas=2",)))
    names = [learner["name"] for learner in half["learners"]]
    assert names == [f"segment{place}_replica{replica}" for place in range(2) for replica in range(2)]
    assert len(half["devices"]) == 4
    for learner, replica in zip(whole["learners"], half["learners"][::2], strict=True):
        assert replica["body_activations"] == pytest.approx(learner["body_activations"] / 2, rel=0.01)
        assert replica["parameters"] == learner["parameters"]
    assert half["messages"]["batch"] == whole["messages"]["batch"]


def test_fractions_of_a_gpu_put_learners_together(command: Any) -> None:
    (team,) = command("estimate", "infopro_digits", "--k", "4", "plan.gpus_per_learner=0.5", "--json").json["teams"]
    assert [len(group) for group in team["devices"]] == [2, 2]


def test_branches_count_the_same_whoever_trains_them(command: Any) -> None:
    inside, beside = (
        command("estimate", "dhm_digits", f"method.branch_learners={own}", "--json").json["teams"][0]
        for own in ("false", "true")
    )
    assert beside["parameter_overhead"] == pytest.approx(inside["parameter_overhead"], rel=0.01)
    assert beside["mac_overhead"] == pytest.approx(inside["mac_overhead"], rel=0.01)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("infopro_digits", "--k", "1,2,4", "--gpu-memory", "1MB"), "method.num_segments=1"),
        pytest.param(
            ("dml_infopro_digits", "--k", "2,3", "--gpu-memory", "1GB"),
            "method.peer_method.num_segments=2",
            marks=pytest.mark.slow,
        ),
        (("infopro_digits", "method.cuts=layer1_0", "--k", "3", "--gpu-memory", "1GB"), "method.cuts=balanced_layers"),
    ],
)
def test_what_fits_can_be_pasted(command: Any, words: tuple[str, ...], path: str) -> None:
    answer = command("estimate", *words)
    (said,) = (line for line in answer.out.splitlines() if line.startswith("fits into"))
    assert path in said
    largest = answer.out.rpartition("data.batch_size=")[2].split()[0]
    # Not more than there are images.
    assert int(largest) <= 500
    fields = [*said.partition("the smallest: ")[2].split(), f"data.batch_size={largest}"]
    changed, _ = apply_overrides(load_recipe(words[0]), Plan(), fields)
    assert changed.data.batch_size == int(largest)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["infopro_cityscapes_resnet101", "infopro_camvid_resnet18", "dhm_market1501_resnet50", "dml_market1501_mobilenet"],
)
def test_what_fits_is_found_for_recipes_that_do_not_take_every_batch(command: Any, name: str) -> None:
    answer = command("estimate", name, "--gpu-memory", "24GB")
    assert answer.code == 0, answer.err
    assert "largest batch of the recipe as it is: data.batch_size=" in answer.out


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (("infopro_digits", "--k", "1,2", "--gpu-memory", "1MB"), ["on one device", "with a device for each learner"]),
        (("greedy_digits", "--k", "2", "--gpu-memory", "1MB", "--gpus", "2"), ["on 2 devices"]),
        (("end_to_end_digits", "--gpu-memory", "900KB", "--gpus", "1"), ["on one device"]),
    ],
)
def test_the_fastest_way_that_fits_can_be_pasted(command: Any, words: tuple[str, ...], places: list[str]) -> None:
    lines = command("estimate", *words).out.splitlines()
    said = {number: line for number, line in enumerate(lines) if line.startswith("the fastest that fits")}
    assert [line.partition(" (")[0].removeprefix("the fastest that fits ") for line in said.values()] == places
    found = command("estimate", *words, "--json").json["fits"]["fastest"]
    for number, each in zip(said, found, strict=True):
        fields = lines[number + 1].split()
        assert fields == (each["fields"] or ["the", "recipe", "as", "it", "is"])
        assert each["needed"] <= 1_000_000
        apply_overrides(load_recipe(words[0]), Plan(), each["fields"])


def test_what_fits_on_one_device_in_turn_alone_says_so(command: Any) -> None:
    words = ("estimate", "greedy_digits", "numerics.compile=true", "--k", "2")
    (team,) = command(*words, "--gpus", "1", "--json").json["teams"]
    words = (*words, "--gpu-memory", f"{team['in_turn_bytes'] / 1000 + 1:.3f}KB")
    lines = command(*words, "--gpus", "1").out.splitlines()
    (said,) = (line for line in lines if line.startswith("does not fit"))
    assert said.endswith("with K = 2, each learner an actor")
    (place,) = (number for number, line in enumerate(lines) if line.startswith("the fastest that fits on one device ("))
    assert lines[place + 1].endswith(" plan.executor=process")
    # With that plan the table says so, too.
    lines = command(*words, "plan.executor=process").out.splitlines()
    assert any(line.startswith("fits into") for line in lines)
    assert sum(line.startswith("the fastest that fits on one device (") for line in lines) == 1


def test_devices_that_a_plan_shares_are_not_called_one_for_each(command: Any) -> None:
    words = ("estimate", "greedy_digits", "numerics.compile=true", "--k", "2", "plan.gpus_per_learner=0.5")
    answer = command(*words, "--gpu-memory", "1GB")
    assert "the fastest that fits on as many devices as plan.gpus_per_learner asks for (" in answer.out


@pytest.mark.slow
def test_no_row_of_the_table_that_fits_is_faster_than_the_fastest(command: Any) -> None:
    words = ("greedy_cifar10_resnet32_k8", "data.root=/nowhere", "data.batch_size=128", "plan.executor=process")
    values = command("estimate", *words, "--gpu-memory", "200MB", "--json").json
    (fastest,) = values["fits"]["fastest"]
    fitting = [team["speed_up"] for team in values["teams"] if team["needed"] <= 200_000_000]
    assert len(fitting) == 2 and fastest["speed_up"] >= max(fitting)


def test_a_recipe_that_recomputes_is_compared_with_one_that_does_not(command: Any) -> None:
    (plain,), (again,) = (
        command("estimate", "end_to_end_digits", *more, "--json").json["teams"]
        for more in ((), ("numerics.recompute=blocks",))
    )
    assert plain["speed_up"] == pytest.approx(1.0)
    assert 0.6 < again["speed_up"] < 1.0
    assert again["learners"][0]["body_activations"] < 0.6 * plain["learners"][0]["body_activations"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # From four on, a segment would end behind the 16 channels of the last stage.
        (("predsim_digits", "method.prediction_features=8"), "method.prediction_features=8 is the most"),
        (
            ("infopro_digits", "method.reconstruction_weight=1,0", "method.classification_weight=1,0"),
            "method.reconstruction_weight and method.classification_weight are both 0 in segment",
        ),
    ],
)
def test_numbers_of_segments_that_nobody_asked_for_are_left_out_with_the_reason(
    command: Any, words: tuple[str, ...], said: str
) -> None:
    words = ("estimate", *words, "backbone.name=resnet20")
    answer = command(*words, "--gpu-memory", "1GB")
    assert answer.code == 0, answer.err
    assert all(f"\nleft out: K = {count}: {said}" in answer.out for count in (4, 8))
    assert "with K = 1, 2;" in answer.out
    values = command(*words, "--json").json
    assert [team["num_segments"] for team in values["teams"]] == [1, 2]
    assert list(values["left_out"]) == ["K = 4", "K = 8"]
    for asked in (("--k", "2,4"), ("method.num_segments=4",)):
        refused = command(*words, *asked)
        assert refused.code == 2
        assert said in refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("infopro_digits", "--k", "0"), "--k 0"),
        (("infopro_digits", "--k", "two"), "--k two"),
        (("infopro_digits", "--gpu-memory", "16 apples"), "16GB"),
        (("infopro_digits", "--gpu-memory", "16"), "bytes with a unit"),
        (("infopro_digits", "--gpu-memory", "9" * 400 + "GB"), "9... (402 characters): expected bytes with a unit"),
        (("infopro_digits", "--gpu-memory", "0GB"), "--gpu-memory 0GB: expected bytes with a unit"),
        (("infopro_digits", "--gpu-memory", "1000001TB"), "at most 1,000,000TB"),
        (
            ("infopro_digits", "--k", "2," + "9" * 5000),
            "9... (5,002 characters): expected a whole number from 1 to 65,536",
        ),
        (("infopro_digits", "--gpus", "9" * 5000), "9... (5,000 characters): expected a whole number from 1 to 65,536"),
        (("infopro_digits", "--k", "70000"), "from 1 to 65,536"),
        (("dml_digits", "--profile"), "leave --profile out"),
        (("predsim_digits", "plan.replicas=2"), "set plan.replicas=1"),
        (("method.kind=dml",), "method.kind=dml"),
        (("infopro_digits", "--gpus", "none"), "--gpus none"),
        (("end_to_end_digits", "--profile"), "--profile"),
        (("end_to_end_digits", "--k", "2"), "does not cut"),
        (("infopro_digits", "method.cuts=balanced"), "balanced_layers"),
    ],
)
def test_errors_name_what_is_wrong(command: Any, words: tuple[str, ...], said: str) -> None:
    answer = command("estimate", *words)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert max(map(len, answer.err.splitlines())) < 1000

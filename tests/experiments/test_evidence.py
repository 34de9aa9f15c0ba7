"""Do studies train what they say, go on where they were, and write what was measured into their pages?"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

import engine
from engine.comparison.budget import budget_warnings
from engine.recipes import recipe_identity
from experiments import evidence
from experiments.studies import STUDIES
from experiments.studies.pages import how, write_parts
from experiments.studies.study import Arm, Claim, Study
from experiments.studies.training import Trainer
from experiments.studies.variations import LABELS

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


def _steps(recipe: engine.Recipe) -> int:
    share = recipe.data.labelled_fraction if recipe.data.unlabelled == "drop" else 1.0
    return recipe.epochs * math.ceil(400 * (share or 1.0) / recipe.data.batch_size)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_all_arms_of_a_study_have_one_budget(study: Study) -> None:
    root = "images" if study.needs_images else None
    jobs = {label: study.job(label, 7, None, root) for label in study.arms}
    recipes = {label: recipe for label, (recipe, _) in jobs.items()}
    if study is LABELS:
        assert {_steps(recipe) for recipe in recipes.values()} == {300}
    else:
        assert budget_warnings(recipes) == ()
    assert {recipe.seed for recipe in recipes.values()} == {7}
    assert {recipe.data.subset_seed for recipe in recipes.values()} == {7 if study.draws_images else 0}
    assert {plan.executor for _, plan in jobs.values()} == {"process"}
    # No two arms are the same, but for those that are one recipe at other learning rates.
    assert len({(recipe_identity(recipe), study.rates_of(label)) for label, recipe in recipes.items()}) == len(recipes)
    assert {name for claim in study.claims for name in (claim.arm, claim.over)} <= recipes.keys()


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_seeds_that_choose_are_no_part_of_the_result(study: Study) -> None:
    assert not set(study.seeds) & set(study.choosing_seeds)
    chooses = any(len(study.rates_of(label)) > 1 for label in study.arms)
    assert chooses == bool(study.choosing_seeds)


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_parts_of_a_study_have_all_arms_and_share_no_run(parts: int) -> None:
    for study in STUDIES.values():
        found = [study.part(number, parts) for number in range(1, parts + 1)]
        assert sorted(label for part in found for label in part) == sorted(study.arms)
        recipes = [{study.arms[label].recipe for label in part} for part in found]
        assert sum(map(len, recipes)) == len(set().union(*recipes))


def test_marked_parts_of_pages_are_written_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "one.md"
    page.write_text(
        "# Title\n\n<!-- evidence a -->\n\nold\n\n<!-- end -->\n\nkept\n\n<!-- evidence b -->\n<!-- end -->\n"
        "\n<!-- evidence c -->\nold too\n<!-- end -->\n\n<!-- evidence a -->\nnever ends\n"
    )
    (tmp_path / "other.md").write_text("a\n")
    assert write_parts(tmp_path, {"a": "new \\1\n", "b": "newer", "d": "nowhere"}) == {"a": page, "b": page}
    assert page.read_text() == (
        "# Title\n\n<!-- evidence a -->\n\nnew \\1\n\n<!-- end -->\n\nkept\n\n<!-- evidence b -->\n\nnewer\n\n"
        "<!-- end -->\n"
        "\n<!-- evidence c -->\nold too\n<!-- end -->\n\n<!-- evidence a -->\nnever ends\n"
    )
    before = page.read_bytes()
    write_parts(tmp_path, {"a": "new \\1", "b": "newer"})
    assert page.read_bytes() == before


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_its_place_in_the_pages(name: str) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted(evidence.PAGES.glob("*.md")))
    marked = set(re.findall(r"<!-- evidence (\S+) -->", pages))
    assert f"{name}/how" in marked
    assert any(part.split("/")[0] == name for part in marked - {f"{name}/how"})


def test_the_command_on_a_page_is_the_one_that_was_run() -> None:
    assert "python -m experiments.evidence tiny\n" in how(TINY, (3, 4))
    assert "python -m experiments.evidence tiny --seeds 3\n" in how(TINY, (3,))
    with_images = dataclasses.replace(TINY, needs_images=True)
    assert "python -m experiments.evidence tiny --root DIR --seeds 3\n" in how(with_images, (3,))


def test_an_arm_that_always_fails_is_told(tmp_path: Path) -> None:
    hopeless = dataclasses.replace(TINY, arms={"plain": Arm("end_to_end_digits", learning_rates=(1e29, 1e30))})
    with pytest.raises(engine.RunError, match="plain: fails with every learning rate that is tried"):
        Trainer(hopeless, None, tmp_path).choose_rates(["plain"])


def test_the_command_writes_its_page_and_trains_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evidence.STUDIES, "tiny", TINY)
    for name in ("PAGES", "FIGURES", "FOLDER"):
        monkeypatch.setattr(evidence, name, tmp_path)
    page = tmp_path / "page.md"
    page.write_text(before := "<!-- evidence tiny -->\n<!-- end -->\n\n<!-- evidence tiny/how -->\nold\n<!-- end -->\n")
    assert evidence.main(["tiny", "--part", "1/2"]) == 0
    said = capsys.readouterr()
    assert "part 1/2 is trained" in said.out
    assert "plain, learning rate 1e+30, seed 0 failed: " in said.err
    assert "plain: learning rate 0.05 (" in said.err
    assert page.read_text() == before
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("end_to_end_digits-*/summary.json")}
    recipes = [engine.load(path.parent).recipe for path in trained]
    # Each seed has images of its own; that which chooses is none of those of the result.
    assert sorted((recipe.seed, recipe.data.subset_seed) for recipe in recipes) == [(0, 0), (3, 3), (4, 4)]
    assert evidence.main(["tiny"]) == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    text = page.read_text()
    assert text.count("| peers | 0.1 | ") == 1
    assert "| peers alone gain (nobody) | peers over plain | " in text
    assert "Seeds 3, 4: mean" in text
    assert (tmp_path / "evidence_tiny.png").stat().st_size > 1000
    assert f"{page} holds tiny/how" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digit"], "digit: there is no such study; there is digits, "),
        (["colour"], "colour needs images: give --root DIR; ResNet-20"),
        (["digits", "--root", "DIR"], "--root DIR: digits reads no folder; leave it out"),
        (["digits", "--seeds", "3,"], "--seeds 3,: expected different whole numbers with commas between"),
        (["digits", "--seeds", "3,3"], "--seeds 3,3: expected different whole numbers"),
        (["digits", "--part", "3/2"], "--part 3/2: expected which part of how many, such as 1/2"),
        (["digits", "--part", "0/2"], "--part 0/2: expected which part of how many, such as 1/2"),
    ],
)
def test_bad_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        evidence.main(words)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_images_that_are_not_there_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "FOLDER", tmp_path / "runs")
    assert evidence.main(["branches", "--root", str(tmp_path / "gone")]) == 2
    assert str(tmp_path / "gone") in capsys.readouterr().err

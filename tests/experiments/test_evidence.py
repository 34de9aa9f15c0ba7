"""Do studies train what they say, go on where they were, and write what was measured into their pages?"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

import engine
from engine.comparison.budget import budget_warnings
from engine.recipes import recipe_identity
from engine.training.holding import hold, refuse_held, release
from experiments import evidence
from experiments.studies import STUDIES
from experiments.studies.pages import how, machines_of, shown_seeds, write_parts
from experiments.studies.study import Arm, Study
from experiments.studies.training import Choice, Trained, Trainer
from experiments.studies.variations import LABELS
from tests.experiments.tiny_study import TINY


def _steps(recipe: engine.Recipe) -> int:
    share = recipe.data.labelled_fraction if recipe.data.unlabelled == "drop" else 1.0
    return recipe.epochs * math.ceil(400 * (share or 1.0) / recipe.data.batch_size)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_all_arms_of_a_study_have_one_budget(study: Study) -> None:
    root = "images" if study.needs_images else None
    jobs = {label: study.job(label, 7, None, root) for label in study.arms}
    recipes = {label: recipe for label, (recipe, _) in jobs.items()}
    if study is LABELS:
        assert {_steps(recipe) for recipe in recipes.values()} == {600}
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
    assert write_parts(tmp_path, {"a": "new \\1\n", "b": "newer", "d": "nowhere"}) == {"a": [page], "b": [page]}
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
    claims = evidence.STUDIES[name].claims
    assert (f"{name}/claims" in marked) == bool(claims)
    for shown in re.findall(rf"<!-- evidence {name}/claims -->\n\n(\|.*?)\n\n<!-- end -->", pages, re.DOTALL):
        tested = [line.split(" | ")[1] for line in shown.splitlines()[2:]]
        assert tested == [f"{claim.arm} over {claim.over}" for claim in claims], "the command would write another table"


def test_the_command_on_a_page_is_the_one_that_was_run() -> None:
    assert "python -m experiments.evidence tiny\n" in how(TINY, (3, 4), {}, [])
    assert "python -m experiments.evidence tiny --seeds 3\n" in how(TINY, (3,), {}, [])
    with_images = dataclasses.replace(TINY, needs_images=True)
    assert "python -m experiments.evidence tiny --root DIR --seeds 3\n" in how(with_images, (3,), {}, [])
    said = how(TINY, (3, 4), {"plain": Choice(0.1, {0.05: 0.8, 0.1: 0.9})}, ["1 core", "2 cores"])
    assert "with seed 0 (one run for each rate," in said.replace("\n", " ")
    assert "| plain | 80.00 % | 90.00 % | 0.1, at the edge |" in said
    assert said.endswith("\n\n*Machines: 1 core; 2 cores.*")


def test_machines_are_those_that_trained_the_runs(tmp_path: Path) -> None:
    versions = {"engine": "0.2", "git_revision": "0123456789", "python": "3.12.1", "packages": {"torch": "3.0"}}
    found = {"cores": 4, "processor": "Z80", "gpus": [], **versions}
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, cores in zip(folders, (4, 8, 4), strict=True):
        folder.mkdir()
        (folder / "environment.json").write_text(json.dumps({**found, "cores": cores}))
    words = "cores of Z80, no GPU, torch 3.0, Python 3.12.1, engine 0.2 at 0123456"
    assert machines_of(folders) == [f"4 {words}", f"8 {words}"]
    (folders[1] / "environment.json").write_text("{}")
    with pytest.raises(engine.RunError, match=r"b/environment.json: .*cores"):
        machines_of(folders)


def test_a_page_with_more_seeds_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evidence.STUDIES, "tiny", TINY)
    monkeypatch.setattr(evidence, "PAGES", tmp_path)
    page = tmp_path / "page.md"
    command = "<!-- evidence tiny/how -->\npython -m experiments.evidence tiny{}\n<!-- end -->\n"
    page.write_text("<!-- evidence tiny -->\nNot run yet.\n<!-- end -->\n" + command.format(""))
    assert shown_seeds(tmp_path, TINY) == ()
    page.write_text(before := page.read_text().replace("Not run yet.", "| a |\n| --- |\n| 1 |"))
    assert shown_seeds(tmp_path, TINY) == TINY.seeds
    with pytest.raises(SystemExit) as refused:
        evidence.main(["tiny", "--seeds", "4,5"])
    assert refused.value.code == 2
    line = "--seeds 4,5: the page of tiny shows seeds 3,4, which would be lost; give --seeds 3,4,5"
    assert line in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        evidence.main(["tiny", "--seeds", "4,0"])
    assert refused.value.code == 2
    line = "--seeds 4,0: tiny chooses learning rates with 0, which are no part of the result; give --seeds 3,4"
    assert line in capsys.readouterr().err
    assert page.read_text() == before
    page.write_text(before.replace(command.format(""), command.format(" --seeds 7,8")))
    assert shown_seeds(tmp_path, TINY) == (7, 8)


def _result(folder: Path, **changes: object) -> engine.Result:
    values = {field.name: None for field in dataclasses.fields(engine.Result)}
    known = {"run_dir": folder, "status": "finished", "test_score": 0.99, "diverged": {}, "seconds": 1.0}
    return engine.Result(**{**values, **known, **changes})  # type: ignore[arg-type]


def test_a_cohort_that_lost_a_peer_has_failed_and_its_rate_is_not_eligible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = {0.05: 0.3, 0.1: 0.9}

    def train(recipe: engine.Recipe, plan: engine.Plan, folder: Path, console: object) -> engine.Result:
        diverged = {"peer1": "loss is NaN"} if recipe.optimizer.learning_rate == 0.1 or recipe.seed == 4 else {}
        return _result(folder, test_score=score[recipe.optimizer.learning_rate], diverged=diverged)

    def compared(trained: Trained) -> SimpleNamespace:
        return SimpleNamespace(validation_scores={seed: result.test_score for seed, result in trained.results.items()})

    monkeypatch.setattr(engine, "train", train)
    monkeypatch.setattr(Trained, "compared", compared)
    trainer = Trainer(
        dataclasses.replace(TINY, arms={"peers": Arm("dml_digits")}, learning_rates=(0.05, 0.1)), None, tmp_path
    )
    choices = trainer.choose_rates(["peers"])
    left = "peer1 has left the cohort: loss is NaN"
    assert choices == {"peers": Choice(0.05, {0.05: 0.3}, {0.1: f"seed 0: {left}"})}
    peers = trainer.train(choices, TINY.seeds)["peers"]
    assert (list(peers.results), peers.failures) == ([3], {4: left})


def test_an_error_other_than_divergence_ends_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object, **__: object) -> engine.Result:
        raise engine.LearnerError("segment0", "out of memory")

    monkeypatch.setattr(engine, "train", train)
    with pytest.raises(engine.LearnerError, match="segment0: out of memory"):
        Trainer(TINY, None, tmp_path).choose_rates(["plain"])


def test_a_run_that_another_study_trains_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[IO[str]] = []

    def train(recipe: engine.Recipe, plan: engine.Plan, folder: Path, console: object) -> engine.Result:
        folder.mkdir(exist_ok=True)
        held.extend([] if held else [hold(folder, "training")])
        refuse_held(folder, "training")
        return _result(folder)

    monkeypatch.setattr(engine, "train", train)
    monkeypatch.setattr(time, "sleep", lambda seconds: release(held[0]) if seconds >= 1 else None)
    trained = Trainer(TINY, None, tmp_path).train({"peers": Choice(0.1)}, (3,))["peers"]
    assert trained.results[3].test_score == 0.99
    assert "peers, learning rate 0.1, seed 3: waits for another process, which trains it (" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["end_to_end_digits", "independent_digits"])
def test_an_arm_that_always_fails_is_told(recipe: str, tmp_path: Path) -> None:
    hopeless = dataclasses.replace(TINY, arms={"plain": Arm(recipe, learning_rates=(1e29, 1e30))})
    with pytest.raises(engine.RunError, match="plain: fails with every learning rate that is tried"):
        Trainer(hopeless, None, tmp_path).choose_rates(["plain"])


@pytest.mark.slow
def test_the_command_writes_its_page_and_trains_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evidence.STUDIES, "tiny", TINY)
    for name in ("PAGES", "FIGURES", "FOLDER"):
        monkeypatch.setattr(evidence, name, tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        before := "<!-- evidence tiny -->\n<!-- end -->\n\n<!-- evidence tiny/claims -->\n<!-- end -->\n\n"
        "<!-- evidence tiny/how -->\nold\n<!-- end -->\n"
    )
    assert evidence.main(["tiny", "--part", "1/2"]) == 0
    said = capsys.readouterr()
    assert "part 1/2 is trained" in said.out
    assert "plain, learning rate 1e+30, seed 0 failed: " in said.err
    assert "plain: learning rate 0.05, at the edge (" in said.err
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
    assert "- plain, learning rate 1e+30, not eligible: seed 0: " in text
    assert re.search(r"\| plain \| \d+\.\d\d % \| failed \| 0\.05, at the edge \|", text)
    assert f"\n*Machine: {machines_of([run.parent for run in trained])[0]}.*\n" in text
    assert (tmp_path / "evidence_tiny.png").stat().st_size > 1000
    assert f"tiny/how stands in {page}" in capsys.readouterr().out


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
        (["dhm_stability", "--part", "3/3"], "--part 3/3: dhm_stability has 2 recipes, so expected at most 2 parts"),
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

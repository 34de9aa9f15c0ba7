"""Does the page hold all that lies in the folders, whatever they hold, and nothing that runs?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import engine
from engine.analysis import Settings, analyse, write_report
from engine.analysis.report import runs
from engine.cli.main import main
from engine.comparison import ComparedRecipe
from engine.comparison.tables import compared_markdown
from engine.errors import InputError, NotWritten, RunError
from engine.recipes import Classification, Plan, Retrieval
from engine.tasks import ACCURACY
from tests.analysis.conftest import tiny
from tests.analysis.html_page import Page

FEW = Settings(images=20)
EVIL = '<img src=x onerror=alert(1)> & "quotes" \'\u202e'


@pytest.fixture(autouse=True)
def curves(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Draw a stand-in for the curves, which takes no time; gives what really draws them."""
    drawn = runs.plot_curves
    monkeypatch.setattr(
        runs, "plot_curves", lambda records, path, title, headline: Image.new("RGB", (90, 60)).save(path)
    )
    return drawn


@pytest.fixture(scope="module")
def analysed_run(trained_runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one network whose posterior was looked at; not to be changed."""
    run = shutil.copytree(trained_runs("end_to_end"), tmp_path_factory.mktemp("analysed") / "end_to_end")
    analyse([run], ["posterior"], FEW)
    return run


@pytest.fixture
def analysed(analysed_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(analysed_run, tmp_path / "a<b>&'\"")


def _page(path: Path) -> Page:
    page = Page(path.read_text())
    page.check()
    return page


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_run_is_told_with_all_that_was_analysed(run_of: Any, curves: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "plot_curves", curves)
    run = run_of("dml")
    analyse([run], ["posterior", "similarity"], FEW)
    target = write_report([run])
    assert target == run / "analysis" / "report.html"
    page, result = _page(target), engine.Result.from_json(json.loads((run / "summary.json").read_text()), run)
    words = [words for _, words in page.headings]
    assert words == [
        "Report: dml",
        "dml",
        *("Summary", "Scores", "Curves", "Learners", "Faults and warnings", "Recipe", "Analyses"),
        *("Entropy and calibration of the posterior", "Similarity of predictions and features"),
    ]
    cells = {row[0]: row[1] for row in page.table(0)}
    assert cells["status"] == "finished" and cells["epochs"] == "1 of 1"
    assert cells["sha256 of the weights"] == result.weights_sha256
    assert cells["test accuracy"] == f"{100 * result.test_score:.2f} %"
    assert [row[0] for row in page.table(1)[1:]] == ["peer0, test", "peer1, test", "ensemble, test"]
    assert [row[0] for row in page.table(2)[1:]] == ["peer0", "peer1"]
    assert len(page.values("img", "src")) == 3
    assert "dml after step 4; 20 images of test, drawn with seed 0." in page.texts("figcaption")
    assert [row[0] for row in page.tables[-1]] == ["first", "peer0"]
    again = target.read_bytes()
    assert write_report([run]).read_bytes() == again


@pytest.mark.slow
def test_several_runs_come_after_what_was_found_of_them_together(run_of: Any, tmp_path: Path) -> None:
    places = [run_of("end_to_end"), run_of("infopro")]
    analyse(places, ["posterior"], FEW)
    page = _page(write_report(places))
    assert (places[0] / "analysis" / "together" / "report.html").is_file()
    words = [words for level, words in page.headings if level == 2]
    assert words == ["Runs", "Analysed together", "end_to_end", "infopro"]
    assert [row[0] for row in page.table(0)] == ["run", "end_to_end", "infopro"]
    assert page.values("a", "href") == ["#run-1", "#run-2"]
    assert len(page.values("img", "src")) == 1 + 2 + 2
    both = tmp_path / "both"
    assert write_report(places, both) == both / "report.html"
    # What was found together is told with the run in whose folder it lies.
    words = [words for _, words in _page(both / "report.html").headings]
    assert "Analysed together" not in words and "Together with other runs" in words


def test_checkpoints_are_told_with_their_run(run_of: Any) -> None:
    run = run_of("end_to_end")
    (checkpoint,) = (run / "checkpoints").iterdir()
    analyse([checkpoint], ["posterior"], FEW)
    target = write_report([checkpoint, run])
    assert target == run / "analysis" / "report.html"
    assert f"Checkpoint {checkpoint.name}" in [words for _, words in _page(target).headings]


@pytest.mark.parametrize("left", ["summary.json", "metrics.jsonl", "environment.json", "checkpoints"])
def test_what_is_missing_is_no_error(run_of: Any, left: str) -> None:
    run = run_of("end_to_end")
    path = run / left
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = _page(write_report([run]))
    if left == "summary.json":
        assert page.table(0)[1][1].startswith("not ended: ") and page.table(0)[2] == ["last record", "epoch 1, step 4"]
    assert ("Curves" in [words for _, words in page.headings]) == (left != "metrics.jsonl")
    assert (f"{run}/metrics.jsonl does not exist" in page.text) == (left == "metrics.jsonl")


@pytest.mark.parametrize("damaged", ["summary.json", "metrics.jsonl", "environment.json", "table.md", "picture.png"])
def test_what_is_damaged_is_named_and_the_rest_is_told(analysed: Path, damaged: str) -> None:
    run = analysed
    (path,) = [path for path in run.rglob(damaged) if "checkpoints" not in path.parts]
    path.write_bytes(b"\xff<b>damaged</b>\n" + path.read_bytes()[:200])
    page = _page(write_report([run]))
    assert any(str(path) in words for words in page.texts("li")), page.texts("li")
    assert "Recipe" in [words for _, words in page.headings]


def test_nothing_in_a_folder_becomes_more_than_text(analysed: Path) -> None:
    run = analysed
    fault = {"cause": EVIL, "step": 3, "repeated_steps": 2, "seconds_lost": 1.5}
    absence = {"network": EVIL, "cause": EVIL, "since": 1, "until": None}
    _edit(run / "summary.json", faults=[fault], absences=[absence], warnings=[EVIL], diverged={EVIL: EVIL})
    _edit(run / "environment.json", processor=EVIL, **{EVIL: "x\udcff\x1b[31m"})
    table = run / "analysis" / "posterior" / "table.md"
    table.write_text(table.read_text() + f"\n- {EVIL}\n\n<script>alert(1)</script>\n")
    page = _page(write_report([run]))
    shown = EVIL.replace("\u202e", "\ufffd")
    assert page.text.count(shown) == 9
    assert "\\udcff\ufffd[31m" in page.text and "<script>alert(1)</script>" in page.text


def test_links_are_not_followed(analysed: Path, tmp_path: Path) -> None:
    run, other = analysed, tmp_path / "other"
    (run / "analysis" / "posterior").rename(other)
    (run / "analysis" / "posterior").symlink_to(other)
    assert "Analyses" not in [words for _, words in _page(write_report([run])).headings]


@pytest.fixture
def comparison(run_of: Any, tmp_path: Path) -> Path:
    """The folder of a comparison, as the engine would leave it."""
    folder = tmp_path / "compared"
    (folder / "runs").mkdir(parents=True)
    for label, seed in (("end_to_end", 2), ("end_to_end", 10), ("infopro", 2)):
        shutil.move(run_of(label, called=f"{label}{seed}"), folder / "runs" / f"{label}-seed{seed}")
    (folder / "runs" / "infopro-seed10").mkdir()
    (folder / "comparison.json").write_text("{}")
    scores = {2: 0.5, 10: 0.75}
    rows = [ComparedRecipe(f"one{EVIL}", scores, scores, {}, 10, None, 3.0, 100)]
    rows.append(ComparedRecipe("infopro", {2: 0.6}, {2: 0.6}, {10: f"it fell | {EVIL}"}, 20, 5.0, None, None))
    page = compared_markdown("2 recipes", rows, (2, 10), ACCURACY, ["epochs=1 and 2"], ["how"])
    (folder / "comparison.md").write_text(page)
    Image.new("RGB", (300, 200)).save(folder / "comparison.png")
    return folder


def test_a_comparison_begins_with_its_table_and_picture(comparison: Path) -> None:
    target = write_report([comparison])
    assert target == comparison / "analysis" / "report.html"
    page = _page(target)
    words = [words for level, words in page.headings if level == 2]
    names = ["end_to_end-seed2", "end_to_end-seed10", "infopro-seed2"]
    assert words == ["Comparison compared: 2 recipes", "Runs", *names]
    first = page.table(0)
    assert first[0][:3] == ["recipe", "test accuracy", "gain (points)"] and first[2][0] == "infopro"
    assert first[1][0].startswith("one<img src=x") and page.table(1)[0][0] == "run"
    assert any(line.startswith("infopro, seed 10: it fell | <img") for line in page.texts("li"))
    assert f"{comparison}: infopro-seed10: no training has begun" in page.texts("li")
    assert page.values("img", "width")[0] == "192"
    (comparison / "comparison.md").unlink()
    (comparison / "runs" / names[0] / "recipe.json").write_text("{")
    page = _page(write_report([comparison]))
    assert any(line.startswith("comparison.md is not there yet") for line in page.texts("li"))
    assert any("recipe.json" in line for line in page.texts("li"))
    assert [words for level, words in page.headings if level == 2] == ["Comparison compared", "Runs", *names[1:]]


def test_a_search_is_told_with_its_trials(run_of: Any, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    (folder / "trials" / ".hidden").mkdir(parents=True)
    shutil.move(run_of("end_to_end"), folder / "trials" / "trial-0001")
    (folder / "sweep.json").write_text("{}")
    (folder / "sweep.md").write_text("# k: 1 trials\n\n| trial | k |\n|---|---|\n| trial-0001 | 2 |\n\nBest: `x`.\n")
    page = _page(write_report([folder]))
    assert [words for level, words in page.headings if level == 2] == ["Search search: k: 1 trials", "trial-0001"]
    assert page.table(0) == [["trial", "k"], ["trial-0001", "2"]] and page.texts("code") == ["x"]


def test_an_interrupted_run_says_so(run_of: Any) -> None:
    run = run_of("infopro")
    _edit(run / "summary.json", status="interrupted", test_score=None, epochs=0)
    page = _page(write_report([run]))
    cells = {row[0]: row[1] for row in page.table(0)}
    assert cells["status"] == "interrupted" and cells["epochs"] == "0 of 1" and cells["test accuracy"] == "-"


@pytest.mark.parametrize(("task", "score"), [(Retrieval(), "mean average precision"), (Classification(), "accuracy")])
def test_every_task_is_told_by_its_own_scores(task: Any, score: str, tmp_path: Path) -> None:
    recipe = tiny("end_to_end", task=task)
    page = _page(write_report([engine.train(recipe, Plan(executor="process"), tmp_path / "run").run_dir]))
    cells = {row[0]: row[1] for row in page.table(0)}
    assert cells[f"test {score}"].endswith(" %") and score in page.table(1)[0]


def test_what_is_no_run_is_refused_and_nothing_is_written(run_of: Any, tmp_path: Path) -> None:
    run = run_of("end_to_end")
    with pytest.raises(RunError, match="is no run, comparison or search: there is no recipe.json, comparison.json"):
        write_report([run, tmp_path])
    with pytest.raises(InputError, match="--to .*: is for several runs together, but one is given"):
        write_report([run], tmp_path / "x")
    with pytest.raises(InputError, match="--to="):
        write_report([run, run_of("infopro")], run / "recipe.json")
    (run / "analysis" / "report.html").mkdir(parents=True)
    with pytest.raises(NotWritten, match="report.html"):
        write_report([run])
    (run / "recipe.json").write_text("{")
    with pytest.raises(InputError, match="recipe.json"):
        write_report([run])


def test_the_command_analyses_first(run_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(run_of("end_to_end"))
    assert main(["analyse", run, "--of", "report,topmass", "--images", "20", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["report"] == f"{run}/analysis/report.html" and len(answer["findings"]) == 1
    assert "Mass of the likeliest classes" in Path(answer["report"]).read_text()
    assert main(["analyse", run, "--of", "report"]) == 0
    assert capsys.readouterr().out == f"report: {run}/analysis/report.html\n"
    assert main(["analyse", run, "--of", "reprot"]) == 2
    assert "did you mean 'report'" in capsys.readouterr().err

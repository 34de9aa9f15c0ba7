"""Do the tables of studies hold what was measured: intervals against SciPy, other numbers against the runs' records?"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import engine
from engine.comparison import ComparedRecipe
from experiments.studies import fraction_loss, gradient_agreement, learning_curves, minima, peers, stability
from experiments.studies.study import Arm, Claim, Study
from experiments.studies.tables import arms_table, claims_table, verdict
from experiments.studies.training import Trainer

PLAIN = (0.80, 0.84, 0.79, 0.86, 0.81)
BETTER = (0.84, 0.85, 0.85, 0.88, 0.83)


def row(label: str, scores: Sequence[float], **changes: int) -> ComparedRecipe:
    tested = dict(enumerate(scores, start=10))
    costs = {"parameters": 100, "flops_per_image": 50.0, "images_per_second": None, "peak_memory_bytes": 1000}
    return ComparedRecipe(label, tested, {}, {}, **{**costs, **changes})


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_gains_and_intervals_are_those_of_the_paired_t_test() -> None:
    rows = [row("plain", PLAIN), row("better", BETTER, parameters=250)]
    _, _, plain, better = cells(arms_table(rows, {"plain": 0.1, "better": 0.05}))
    gains = 100 * (np.array(BETTER) - np.array(PLAIN))
    low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert better[3] == f"{gains.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
    assert better[2] == f"85.00 ± {100 * np.std(BETTER, ddof=1):.2f} %"
    assert (better[1], better[4:]) == ("0.05", ["5", "2.50", "1.00", "1.00"])
    assert (plain[1], plain[3]) == ("0.1", "")
    (_, _, claim) = cells(claims_table([Claim("it gains", "Who 2000", "better", "plain")], rows))
    assert claim == ["it gains (Who 2000)", "better over plain", better[3], "5", "**seen**"]


def test_only_seeds_that_both_have_finished_are_compared() -> None:
    rows = [row("plain", PLAIN), row("better", BETTER[:2])]
    _, _, _, better = cells(arms_table(rows, {"plain": None, "better": None}))
    assert better[2].startswith("+2.50 [")
    assert better[3] == "2"


@pytest.mark.parametrize("shift", [-0.05, -0.02, 0.0, 0.01, 0.03])
def test_a_verdict_is_that_of_the_paired_t_test(shift: float) -> None:
    gains = np.array([0.01, -0.02, 0.0, 0.03, -0.01]) + shift
    tested = stats.ttest_1samp(gains, 0)
    expected = "not seen" if tested.pvalue > 0.05 else "**seen**" if tested.statistic > 0 else "**the other way round**"
    assert verdict(list(gains)) == expected


def test_one_seed_is_too_few_for_a_verdict() -> None:
    assert verdict([0.3]) == "too few seeds"


def test_differences_of_minima_have_the_interval_of_the_paired_t_test() -> None:
    names = list(minima.EXPECTED)
    alone = {seed: dict.fromkeys(names, 1.0 + 0.1 * seed) for seed in range(5)}
    together = {seed: dict.fromkeys(names, 2.0 + 0.07 * seed**2) for seed in range(1, 5)}
    _, _, *lines = cells(minima.minima_table({minima.ALONE: alone, minima.TOGETHER: together}))
    differences = np.array([together[seed][names[0]] - alone[seed][names[0]] for seed in range(1, 5)])
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert [line[0] for line in lines] == names
    assert {line[3] for line in lines} == {f"{differences.mean():+.3g} [{low:+.3g}, {high:+.3g}]"}
    assert [line[4:] for line in lines] == [
        ["4", "higher: **seen**" if is_higher else "lower: **the other way round**"]
        for is_higher in minima.EXPECTED.values()
    ]


MEASURED = Study(
    name="measured",
    about="Runs that measure.",
    arms={
        fraction_loss.MEASURED: Arm("mkf_digits", ("method.measure_fraction_every=1", "method.warmup_fraction=0")),
        "DHM": Arm("dhm_digits", ("method.measure_gradients_every=1",)),
        "independent": Arm("independent_digits"),
        "dml": Arm("dml_digits"),
    },
    budget=(
        "data.train_limit=40",
        "data.test_limit=40",
        "data.batch_size=20",
        "backbone.widths=4,4,4",
        "epochs=2",
        "plan.executor=process",
    ),
    seeds=(0,),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, engine.Result]]:
    trainer = Trainer(MEASURED, None, tmp_path_factory.mktemp("runs"))
    trained = trainer.train(trainer.choose_rates(list(MEASURED.arms)), MEASURED.seeds)
    return {label: arm.results for label, arm in trained.items()}


def recorded(runs: dict[int, engine.Result], name: str, epochs: Sequence[int]) -> list[float]:
    records = [record for result in runs.values() for record in engine.load(result.run_dir).metrics()]
    return [record.value for record in records if record.name == name and record.epoch in epochs]


def test_fraction_losses_are_means_of_the_late_epochs(
    results: dict[str, dict[int, engine.Result]], tmp_path: Path
) -> None:
    table = cells(fraction_loss.parts(results, tmp_path)["fractions"])
    shown = {line[0]: line[1] for line in table[2:]}
    late = recorded(results[fraction_loss.MEASURED], "fraction/exact", [2])
    assert shown["exact"] == f"{1000 * statistics.fmean(late):.2f}"
    assert {"random", "shared_clipped", "none"} < shown.keys()
    assert (tmp_path / "fractions.png").stat().st_size > 1000


def test_cosines_are_shown_of_the_arms_that_measured_them(
    results: dict[str, dict[int, engine.Result]], tmp_path: Path
) -> None:
    header, _, *lines = cells(gradient_agreement.parts(results, tmp_path)["cosines"])
    assert header == ["gradients", "DHM"]
    found = {line[0]: line[1:] for line in lines}
    measured = recorded(results["DHM"], "branches/gradient_cosine/label/main~near_top", (1, 2))
    assert found["label/main~near_top"] == [f"{statistics.fmean(measured):.3f}"]
    assert (tmp_path / "gradient_agreement.png").stat().st_size > 1000


def test_peers_and_ensembles_are_set_side_by_side(results: dict[str, dict[int, engine.Result]], tmp_path: Path) -> None:
    cohorts = {arm: results[arm] for arm in ("independent", "dml")}
    _, _, alone, together = cells(peers.parts(cohorts, tmp_path)["peers"])
    assert (alone[0], alone[2], together[0]) == ("independent", "", "dml")
    gains = [
        100 * (dml.metrics[name] - results["independent"][seed].metrics[name])
        for name in ("peer0/test/accuracy", "peer1/test/accuracy")
        for seed, dml in results["dml"].items()
    ]
    assert together[2] == f"{statistics.fmean(gains):.2f} ± {statistics.stdev(gains):.2f}"
    assert (tmp_path / "mutual_learning_small_budget.png").stat().st_size > 1000


def test_learning_curves_have_every_evaluation(results: dict[str, dict[int, engine.Result]], tmp_path: Path) -> None:
    run = results["DHM"][0]
    curve = learning_curves.accuracies_of(engine.load(run.run_dir))
    assert len(curve) == 2
    assert curve[-1] == run.test_score
    assert learning_curves.parts({"DHM": results["DHM"]}, tmp_path) == {}
    assert (tmp_path / "cifar10_small_budget.png").stat().st_size > 1000


def test_minima_are_measured_on_the_training_images_of_all_peers(
    results: dict[str, dict[int, engine.Result]], tmp_path: Path
) -> None:
    arms = {minima.ALONE: results["independent"], minima.TOGETHER: results["dml"]}
    _, _, entropy, *others = cells(minima.parts(arms, tmp_path)["minima"])
    run = engine.load(results["dml"][0].run_dir)
    rows = json.loads((run.path / "analysis" / "posterior" / "numbers.json").read_text())["rows"]
    assert len(rows) == 2
    assert entropy[2] == f"{statistics.fmean(row['entropy'] for row in rows):.4g}"
    assert [len(line) for line in others] == [6, 6, 6]


def test_seeds_that_scatter_are_shown_with_what_they_have_learned(
    results: dict[str, dict[int, engine.Result]], tmp_path: Path
) -> None:
    run = results["DHM"][0]
    (_, _, line) = cells(stability.parts({"DHM": results["DHM"]}, tmp_path)["seeds"])
    assert line[1:4] == ["-", *[f"{run.metrics['test/accuracy']:.2%}".replace("%", " %")] * 2]
    learned = stability.training_accuracies(engine.load(run.run_dir))
    assert list(learned) == [1, 2]
    assert line[5] == f"{learned[2]:.2%}".replace("%", " %")
    assert line[4] == str(next((epoch for epoch, share in learned.items() if share >= 0.9), "never"))

"""Do the tables of studies hold what was measured: intervals against SciPy, other numbers against the runs' records?"""

from __future__ import annotations

import dataclasses
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
from experiments.studies.tables import arms_table, claims_table, failures_list, rates_table, verdict
from experiments.studies.training import Choice, Trainer

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
    assert better[2].endswith(", 2 of 5 seeds")
    assert better[3] == "2"


@pytest.mark.parametrize("loser", ["plain", "better"])
def test_a_seed_that_failed_leaves_no_verdict_and_its_reason(loser: str) -> None:
    rows = [row("plain", (0.8, 0.8, 0.8, 0.8)), row("better", (0.9, 0.91, 0.92, 0.9))]
    claims = [Claim("it gains", "Who 2000", "better", "plain")]
    assert cells(claims_table(claims, rows))[2][-1] == "**seen**"
    failed = [
        dataclasses.replace(each, test_scores={10: each.test_scores[10]}, failures={11: "diverged"})
        if each.label == loser
        else each
        for each in rows
    ]
    assert cells(claims_table(claims, failed))[2][-2:] == ["1", "none: 1 of 4 seeds"]
    (_, _, (*_, number, said)) = cells(claims_table(claims, [each for each in rows if each.label != loser]))
    assert (number, said) == ("0", f"none: every run of {loser} failed")
    # With which both failed is a seed, too.
    both = [dataclasses.replace(each, failures={9: "diverged"}) for each in rows]
    assert cells(claims_table(claims, both))[2][-2:] == ["4", "none: 4 of 5 seeds"]
    said = failures_list(
        {each.label: each.failures for each in failed}, {"plain": Choice(0.1, {0.1: 0.5}, {0.2: "NaN"})}
    )
    assert said.splitlines()[2:] == [
        "- plain, learning rate 0.2, not eligible: NaN",
        f"- {loser}, seed 11: diverged",
    ]


def test_a_choice_shows_what_it_rests_on_and_whether_it_is_at_the_edge() -> None:
    choices = {
        "plain": Choice(0.1, {0.05: 0.8, 0.1: 0.9, 0.2: 0.7}),
        "large": Choice(0.2, {0.1: 0.8, 0.2: 0.9}, {0.05: "diverged"}),
        "bounded": Choice(0.1, {0.05: 0.8, 0.1: 0.9}, {0.2: "diverged"}),
        "as shipped": Choice(None),
        "one": Choice(0.05),
    }
    assert cells(rates_table(choices)) == [
        ["held-out accuracy by rate", "0.05", "0.1", "0.2", "chosen"],
        ["---"] * 5,
        ["plain", "80.00 %", "90.00 %", "70.00 %", "0.1"],
        ["large", "failed", "80.00 %", "90.00 %", "0.2, at the edge"],
        ["bounded", "80.00 %", "90.00 %", "failed", "0.1"],
    ]
    assert rates_table({"one": Choice(0.05)}) == ""


@pytest.mark.parametrize("shift", [-0.05, -0.02, 0.0, 0.01, 0.03])
def test_a_verdict_is_that_of_the_paired_t_test(shift: float) -> None:
    gains = np.array([0.01, -0.02, 0.0, 0.03, -0.01]) + shift
    tested = stats.ttest_1samp(gains, 0)
    expected = "not seen" if tested.pvalue > 0.05 else "**seen**" if tested.statistic > 0 else "**the other way round**"
    assert verdict(list(gains), 5) == expected


def test_one_seed_is_too_few_for_a_verdict() -> None:
    assert verdict([0.3], 1) == "too few seeds"


def test_differences_of_minima_have_the_interval_of_the_paired_t_test() -> None:
    names = list(minima.EXPECTED)
    alone = {seed: dict.fromkeys(names, 1.0 + 0.1 * seed) for seed in range(5)}
    together = {seed: dict.fromkeys(names, 2.0 + 0.07 * seed**2) for seed in range(1, 5)}
    measured, rates = {minima.ALONE: alone, minima.TOGETHER: together}, {minima.ALONE: 0.2, minima.TOGETHER: 0.1}
    header, _, *lines = cells(minima.minima_table(measured, 4, rates))
    assert header[1:3] == ["independent peers, rate 0.2", "DML, rate 0.1"]
    assert {line[-1].split(": ", 1)[1] for line in cells(minima.minima_table(measured, 5, rates))[2:]} == {
        "none: 4 of 5 seeds"
    }
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


def test_peers_are_paired_by_seed(results: dict[str, dict[int, engine.Result]], tmp_path: Path) -> None:
    def scored(first: float, second: float) -> engine.Result:
        known = results["dml"][0]
        return dataclasses.replace(
            known, metrics={**known.metrics, "peer0/test/accuracy": first, "peer1/test/accuracy": second}
        )

    cohorts = {
        "independent": {0: scored(0.1, 0.2), 1: scored(0.3, 0.4)},
        "dml": {1: scored(0.33, 0.45), 2: scored(0.5, 0.5), 3: scored(0.6, 0.6)},
        "other": {2: scored(0.5, 0.5)},
    }
    _, _, alone, together, apart = cells(peers.parts(cohorts, tmp_path)["peers"])
    assert [alone[2], together[2], apart[2]] == ["", "4.00 ± 1.41, 1 of 4 seeds", "-, 0 of 4 seeds"]


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

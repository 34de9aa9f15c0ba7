"""Does `estimate` print tables that can be read, JSON that can be used, and errors that help?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


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


def test_a_cohort_has_a_row_for_each_peer(command: Any) -> None:
    answer = command("estimate", "dml_digits", "--json")
    assert answer.code == 0
    assert {learner["name"] for learner in answer.json["teams"][0]["learners"]} >= {"peer0", "peer1"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("infopro_digits", "--k", "0"), "--k 0"),
        (("infopro_digits", "--k", "two"), "--k two"),
        (("infopro_digits", "--gpu-memory", "16 apples"), "16GB"),
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

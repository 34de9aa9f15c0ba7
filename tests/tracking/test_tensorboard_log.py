"""TensorBoard reads back what was written: scalars, settings, and a resumed run without its lost steps."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from engine.tracking import Record, TensorBoardLog


def record(step: int, value: float, learner: str | None = "segment0") -> Record:
    return Record(1.7e9 + step, 0, step, learner, "train", "loss/total", value)


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def scalars(folder: Path, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in read(folder).Scalars(tag)}


def test_scalars_have_the_records_step_time_and_value(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, None)
    log.write([record(1, 0.1), record(2, math.nan), record(3, math.inf)])
    log.write([record(2, 0.75, learner=None)])
    log.close()
    log.close()
    events = read(tmp_path)
    assert sorted(events.Tags()["scalars"]) == ["segment0/train/loss/total", "team/train/loss/total"]
    found = events.Scalars("segment0/train/loss/total")
    assert [(event.wall_time, event.step) for event in found] == [(1.7e9 + 1, 1), (1.7e9 + 2, 2), (1.7e9 + 3, 3)]
    np.testing.assert_array_equal(
        [event.value for event in found], np.array([0.1, math.nan, math.inf], dtype=np.float32)
    )
    assert scalars(tmp_path, "team/train/loss/total") == {2: 0.75}


def test_text_is_shown_beside_the_scalars(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, None)
    log.write_text("team/train/faults", "1. after step 20: learner segment1: its process 7 died", 20)
    log.close()
    (found,) = read(tmp_path).Tensors("team/train/faults/text_summary")
    assert found.step == 20
    assert found.tensor_proto.string_val[0].decode() == "1. after step 20: learner segment1: its process 7 died"


def test_after_resuming_lost_steps_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TensorBoardLog(tmp_path, None)
    first.write([record(step, float(step)) for step in range(1, 7)])
    first.close()
    # TensorBoard reads event files in the order of their names, which begin with the second they were opened in.
    for path in tmp_path.iterdir():
        os.rename(path, path.with_name("events.out.tfevents.0000000001." + path.name.split(".", 4)[4]))
    resumed = TensorBoardLog(tmp_path, 4)
    resumed.write([record(step, 10.0 * step) for step in (5, 6, 7)])
    resumed.close()
    expected = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 50.0, 6: 60.0, 7: 70.0}
    assert scalars(tmp_path, "segment0/train/loss/total") == expected
    assert len(list(tmp_path.iterdir())) == 2


def test_starting_from_nothing_hides_an_earlier_attempt(tmp_path: Path) -> None:
    first = TensorBoardLog(tmp_path, None)
    first.write([record(step, float(step)) for step in range(1, 7)])
    first.close()
    for path in tmp_path.iterdir():
        os.rename(path, path.with_name("events.out.tfevents.0000000001." + path.name.split(".", 4)[4]))
    second = TensorBoardLog(tmp_path, None)
    second.write([record(1, 9.0)])
    second.close()
    assert scalars(tmp_path, "segment0/train/loss/total") == {1: 9.0}


def test_the_hparams_tab_shows_settings_and_final_numbers(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, None)
    log.write([record(40, 1.0)])
    log.write_hparams(
        {"lr": 0.1, "segments": 4, "name": "infopro", "flip": True, "limit": math.inf},
        {"final/accuracy": 0.9, "final/broken": math.nan},
    )
    log.close()
    assert [path.is_file() for path in tmp_path.iterdir()] == [True], "the same event file, no subfolder"
    events = read(tmp_path)
    content = events.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    shown = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert shown == {"lr": 0.1, "segments": 4.0, "name": "infopro", "flip": "true", "limit": "inf"}
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    assert sorted(info.name.tag for info in experiment.metric_infos) == ["final/accuracy", "final/broken"]
    assert "_hparams_/session_end_info" in content
    assert scalars(tmp_path, "final/accuracy") == {40: pytest.approx(0.9)}
    assert math.isnan(scalars(tmp_path, "final/broken")[40])


def test_a_cohort_is_found_under_clear_tags(tmp_path: Path, made_up_cohort: Callable[..., list[Record]]) -> None:
    log = TensorBoardLog(tmp_path, None)
    log.write(made_up_cohort(2, segments=2, epochs=2))
    log.write_hparams({}, {"ensemble/test/accuracy_gap": 0.05, "test/accuracy": 0.5})
    log.close()
    tags = {"ensemble/test/kl_between_peers", "ensemble/test/accuracy_gap", "ensemble/test/accuracy"}
    tags |= {f"peer{p}_segment{k}/train/loss/mimicry" for p in range(2) for k in range(2)}
    assert tags | {"peer0/test/accuracy", "peer1/test/accuracy"} <= set(read(tmp_path).Tags()["scalars"])
    found = read(tmp_path).Scalars("ensemble/test/accuracy_gap")
    expected = [(5, pytest.approx(0.05)), (10, pytest.approx(0.05))]
    assert [(event.step, event.value) for event in found] == expected, "the final number is there already"
    assert scalars(tmp_path, "test/accuracy") == {10: 0.5}

"""Does `local-learning doctor` find what is missing, and say what to do?"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.cli import checks_of_machine, checks_of_ray, checks_of_versions
from engine.machine import Room, existing


def by_subject(answer: Any) -> dict[str, Any]:
    return {check["subject"]: check for check in answer.json["checks"]}


def test_a_machine_on_which_these_tests_run_can_train(command: Any) -> None:
    answer = command("doctor", "--no-ray")
    assert answer.code == 0
    for subject in ("python", "torch", "ray", "cores", "GPUs", "memory", "shared memory", "disk", "C++ compiler"):
        assert f" {subject}" in answer.out
    assert "0 problems" in answer.out


def test_the_same_as_json(command: Any) -> None:
    answer = command("doctor", "--no-ray", "--json")
    checks = by_subject(answer)
    assert checks["torch"]["found"] == importlib.metadata.version("torch")
    assert checks["cores"]["found"].startswith(f"{len(os.sched_getaffinity(0))} usable")
    assert answer.json["counts"]["ok"] == sum(check["status"] == "ok" for check in checks.values())
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
    assert "Ray" not in checks


def test_a_machine_that_knows_neither_user_nor_home_can_train(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LOCAL_LEARNING_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    answer = command("doctor", "--no-ray", "--json")
    check = by_subject(answer)["disk of the cache"]
    assert (answer.code, check["status"], check["found"]) == (0, "warning", "there is no home folder for the cache")
    train = ("train", "greedy_digits", "epochs=1", "data.train_limit=100", "data.test_limit=100", "--on", "process")
    assert command(*train).code == 0
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", "cache")
    assert by_subject(command("doctor", "--no-ray", "--json"))["disk of the cache"]["status"] == "ok"


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_a_missing_package_is_a_problem(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without("pyarrow", monkeypatch)
    answer = command("doctor", "--json")
    assert answer.code == 2
    check = by_subject(answer)["pyarrow"]
    assert check["status"] == "problem"
    assert "pip install 'pyarrow" in check["remedy"]


def test_a_missing_extra_is_a_warning(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without("onnxscript", monkeypatch)
    answer = command("doctor", "--no-ray", "--json")
    assert answer.code == 0
    check = by_subject(answer)["extra onnx"]
    assert check["status"] == "warning"
    assert check["remedy"] == "pip install 'local-learning[onnx]'"


def test_versions_are_compared_with_the_stated_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = ["torch<1", "numpy>=1", 'pytest<1; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: stated)
    _, torch_check, numpy_check = checks_of_versions.version_checks()
    assert (torch_check.status, numpy_check.status) == ("warning", "ok")
    assert torch_check.remedy == "pip install 'torch<1'"


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert next(checks_of_versions.version_checks()).status == "problem"


def test_little_memory_and_disk_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    little = Room(total=64 * 2**20, free=2**20)
    for name in ("main_memory", "shared_memory"):
        monkeypatch.setattr(checks_of_machine, name, lambda: little)
    monkeypatch.setattr(checks_of_machine, "disk", lambda folder: little)
    found = {check.subject: check for check in checks_of_machine.machine_checks()}
    for subject in ("memory", "shared memory", "disk of this folder", "disk of the cache"):
        assert found[subject].status == "warning"
        assert "1.00 MiB free of 64.0 MiB" in found[subject].found
        assert found[subject].remedy


def test_a_missing_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    found = {check.subject: check for check in checks_of_machine.machine_checks()}
    assert found["C++ compiler"].status == "warning"


def test_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(tmp_path) == tmp_path


def test_data_is_recognised(command: Any) -> None:
    for split, number in (("train", 2), ("test", 1)):
        for label in ("cat", "dog"):
            folder = Path("pictures", split, label)
            folder.mkdir(parents=True)
            for index in range(number):
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"{index}.png")
    answer = command("doctor", "--no-ray", "--data-root", "pictures", "--json")
    data = {subject: check for subject, check in by_subject(answer).items() if subject.startswith("data")}
    assert list(data) == ["data folder"]
    assert "4 train, 2 test, 2 classes" in data["data folder"]["found"]
    assert "data.name=folder data.root=pictures" in data["data folder"]["found"]
    Path("pictures/train/cat/notes.txt").write_text("x")
    answer = command("doctor", "--no-ray", "--data-root", "pictures")
    for said in (
        "train from train/: 4 pictures, 2 in each class",
        "2 classes, named by their folders: cat, dog",
        "not used: 1 files that are no pictures by name or content (train/cat/notes.txt)",
    ):
        assert said in answer.out


def test_an_incomplete_published_set_is_told(command: Any) -> None:
    folder = Path("data/cifar-10-batches-py")
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"")
    answer = command("doctor", "--no-ray", "--data-root", "data", "--json")
    assert answer.code == 0
    assert by_subject(answer)["data cifar10"]["status"] == "warning"


def test_a_folder_with_nothing_of_use(command: Any) -> None:
    Path("empty").mkdir()
    for root in ("empty", "absent"):
        answer = command("doctor", "--no-ray", "--data-root", root, "--json")
        data = [check for check in answer.json["checks"] if check["subject"].startswith("data")]
        assert data
        assert all(check["status"] == "warning" for check in data)


def test_a_ray_that_does_not_start_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_of_ray, "_CODE", "import sys; print('answered'); sys.exit('no port is free')")
    check = checks_of_ray.ray_check()
    assert check.status == "problem"
    assert "no port is free" in check.found
    assert "--on process" in check.remedy


@pytest.mark.slow
def test_a_ray_that_hangs_is_ended_with_all_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noted = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(noted)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(600)"
    )
    monkeypatch.setattr(checks_of_ray, "_CODE", code)
    check = checks_of_ray.ray_check(timeout_seconds=3)
    assert check.status == "problem"
    assert "within 3 s" in check.found
    pids = [int(pid) for pid in noted.read_text().split()]
    patience = time.monotonic() + 20
    # A killed process that is no child of ours is gone a moment after the signal, not with it.
    while any(map(_runs, pids)) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not any(map(_runs, pids))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ray_starts_and_answers() -> None:
    assert checks_of_ray.ray_check().status == "ok"

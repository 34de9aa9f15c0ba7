"""What do all tests share: surroundings that touch nothing of the user's, and a recipe that trains in a second."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A shell, or nohup, may have started this to ignore them; the commands that tests start are to hear them.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# Read when numpy, torch, matplotlib and Ray are imported or started, so before anything else here imports them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

_scratch = tempfile.TemporaryDirectory(prefix="local_learning_tests_", ignore_cleanup_errors=True)
os.environ["LOCAL_LEARNING_CACHE"] = str(Path(_scratch.name) / "cache")
# Every Ray of a test demands a token: one that a test starts as a cluster, and the engine joins none without.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN_PATH"] = str(Path(_scratch.name) / "token")
os.environ.pop("RAY_AUTH_TOKEN", None)
Path(os.environ["RAY_AUTH_TOKEN_PATH"]).write_text("0123456789abcdef" * 4)
Path(os.environ["RAY_AUTH_TOKEN_PATH"]).chmod(0o600)
os.environ.setdefault("MPLCONFIGDIR", str(Path(_scratch.name) / "matplotlib"))

# Ray's workers import nothing from the current folder: what a test sends them is found in this way.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import torch

from engine.recipes import SGD, Augmentation, Backbone, Constant, Data, InfoPro, Recipe

torch.set_num_threads(1)

# No test asserts a time: a busy machine would make it fail.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _scratch_folder() -> Iterator[None]:
    yield
    _scratch.cleanup()


@pytest.fixture(scope="module")
def local_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """Connect a file's tests to one private Ray that offers ``RAY_CPUS`` processors, a name in that file."""
    from engine.runtimes.ray import disconnect, start_private_ray

    start_private_ray(num_cpus=request.module.RAY_CPUS)
    yield
    # Not ray.shutdown(): the next file in this process may start a cluster, and must find no token of this one.
    disconnect()


def make_tiny_recipe(**changes: Any) -> Recipe:
    """Return InfoPro with K = 3 on 44 handwritten digits: 2 epochs of 4 steps, the last batch smaller.

    Args:
        changes: fields of the recipe; ``data`` is a dict of changes to the data's fields.
    """
    data: dict[str, Any] = {
        "name": "digits",
        "train_limit": 44,
        "test_limit": 20,
        "batch_size": 12,
        "evaluation_batch_size": 16,
        "augmentation": Augmentation(crop_padding=1, flip=True),
        **changes.pop("data", {}),
    }
    fields: dict[str, Any] = {
        "name": "tiny",
        "method": InfoPro(num_segments=3),
        "backbone": Backbone(name="resnet14", widths=(4, 4, 4)),
        "data": Data(**data),
        "optimizer": SGD(learning_rate=0.05),
        "schedule": Constant(),
        "epochs": 2,
        **changes,
    }
    return Recipe(**fields)


@pytest.fixture
def tiny_recipe() -> Callable[..., Recipe]:
    """Give a test `make_tiny_recipe`."""
    return make_tiny_recipe

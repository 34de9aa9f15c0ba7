"""What do all tests share: surroundings that touch nothing of the user's, and a recipe that trains in a second."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

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


LABEL_MAP_CLASSES = ("sky", "road", "car")
_COLOURS = np.array([[120, 170, 230], [90, 90, 95], [200, 40, 30]], dtype=np.float64)


def make_label_maps(
    root: Path, splits: dict[str, int], size: tuple[int, int] = (24, 32), seed: int = 0, table: bool = True
) -> Path:
    """Write images/SPLIT/N.png, labels/SPLIT/N.png and classes.txt, and return the root."""
    drawn = np.random.default_rng(seed)
    for split, number in splits.items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for place in range(number):
            labels = _labels_of(drawn, size)
            noise = drawn.normal(0, 12, (*size, 3))
            pixels = np.clip(_COLOURS[np.minimum(labels, 2)] + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{place:03}.png")
            Image.fromarray(labels).save(root / "labels" / split / f"{place:03}.png")
    if table:
        (root / "classes.txt").write_text("\n".join(LABEL_MAP_CLASSES) + "\n")
    return root


def _labels_of(drawn: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return a map of sky above a road with a car, in a frame of two pixels without a class."""
    height, width = size
    labels = np.zeros(size, dtype=np.uint8)
    labels[drawn.integers(height // 3, 2 * height // 3) :] = 1
    left = int(drawn.integers(2, width - width // 3))
    labels[height // 2 : height // 2 + height // 4, left : left + width // 4] = 2
    labels[:2] = labels[-2:] = 255
    return labels


@pytest.fixture
def label_map_set() -> Callable[..., Path]:
    """Give a test `make_label_maps`."""
    return make_label_maps


@pytest.fixture
def head() -> Iterator[Callable[[str | None], str]]:
    """A function: start what answers as the head of a cluster that demands this token, or none; gives its HOST:PORT."""
    grpc = pytest.importorskip("grpc")
    servers = []

    def start(token: str | None) -> str:
        def answer(_: bytes, context: Any) -> bytes:
            said = dict(context.invocation_metadata()).get("authorization")
            if token is not None and said != f"Bearer {token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        class Handler(grpc.GenericRpcHandler):  # type: ignore[name-defined]
            def service(self, handler_call_details: Any) -> Any:
                assert handler_call_details.method.startswith("/ray.rpc.NodeInfoGcsService/")
                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1), handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None)

"""Do messages cross direct links unchanged and in order, and does everybody wake up when a partner is gone?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import LearnerError
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links import GivingEnd, HostCopies, Links, Route, TakingEnd, Way
from engine.runtimes.ray.links.transports import InGroup
from tests.runtimes.giver_and_taker import NUMBERS, PATIENCE, ROUTE, _tensor

Meet = Callable[..., dict[str, Links]]
Pair = Callable[..., tuple[GivingEnd, TakingEnd]]


@pytest.fixture
def pair(meet: Meet) -> Pair:
    def make(way: Way, copies: Callable[[], Any] = HostCopies, route: Route = ROUTE) -> tuple[GivingEnd, TakingEnd]:
        links = meet((route,), way, copies)
        return links["giver"].giving["taker"], links["taker"].taking["giver"]

    return make


def _is_waiting(future: Future[Any]) -> bool:
    try:
        future.result(timeout=0.2)
    except FutureTimeoutError:
        return True
    return False


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(2, 3, 4, 5).bfloat16().contiguous(memory_format=torch.channels_last),
        torch.randn(64, 512).half(),
        torch.randn(6, 8)[:, ::2],
        torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        torch.tensor(3.5, dtype=torch.float64),
        torch.zeros(0, 3, 4, 5),
        torch.arange(7),
        torch.tensor([True, False]),
        torch.arange(9, dtype=torch.uint8),
        torch.randn(3, 5, requires_grad=True) * 2,
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.dtype}",
)
def test_tensors_arrive_as_they_were(tensor: Tensor, way: Way, pair: Pair) -> None:
    giving, taking = pair(way)
    giving.give("first", tensor)
    received = taking.take("first")
    assert (received.dtype, received.shape) == (tensor.dtype, tensor.shape)
    assert received.contiguous().view(-1).view(torch.uint8).equal(tensor.contiguous().view(-1).view(torch.uint8))
    assert received.is_contiguous(memory_format=torch.channels_last) == tensor.is_contiguous(
        memory_format=torch.channels_last
    )
    assert not received.requires_grad


def test_messages_are_taken_in_any_order_and_frames_are_used_again(
    way: Way, beside: ThreadPoolExecutor, pair: Pair
) -> None:
    giving, taking = pair(way)

    def give() -> None:
        for step in range(20):
            giving.give("first", _tensor(step))
            giving.give("second", -_tensor(step)[: NUMBERS - step])
            giving.end_step()

    done = beside.submit(give)
    for step in range(20):
        assert taking.take("second").equal(-_tensor(step)[: NUMBERS - step])
        assert taking.take("first").equal(_tensor(step))
        taking.end_step()
    done.result(PATIENCE)


def test_a_giver_waits_until_a_frame_is_given_back(way: Way, beside: ThreadPoolExecutor, pair: Pair) -> None:
    giving, taking = pair(way)
    for step in range(2):
        giving.give("first", _tensor(step))
        giving.end_step()
    third = beside.submit(giving.give, "first", _tensor(2))
    assert taking.take("first").equal(_tensor(0))
    assert _is_waiting(third), "the frame of a step that is not over was written to"
    taking.end_step()
    third.result(PATIENCE)
    for step in (1, 2):
        assert taking.take("first").equal(_tensor(step))
        taking.end_step()


def test_nothing_is_copied_where_memory_is_shared(pair: Pair) -> None:
    giving, taking = pair("memory")
    giving.give("first", _tensor(0))
    assert taking.take("first").data_ptr() == taking.take("first").data_ptr()
    assert not taking.keeps


def test_what_is_kept_beyond_its_step_is_not_overwritten(way: Way, beside: ThreadPoolExecutor, pair: Pair) -> None:
    """As a learner that remembers what it took: its frame waits, and from then on it gets copies."""
    giving, taking = pair(way)
    done = beside.submit(lambda: [(giving.give("first", _tensor(step)), giving.end_step()) for step in range(9)])
    kept = []
    for _ in range(9):
        kept.append(taking.take("first").view(64, -1))
        taking.end_step()
    done.result(PATIENCE)
    assert taking.keeps
    assert all(tensor.view(-1).equal(_tensor(step)) for step, tensor in enumerate(kept))


def test_a_frame_that_was_kept_comes_back_when_it_is_let_go(beside: ThreadPoolExecutor, pair: Pair) -> None:
    giving, taking = pair("memory")
    giving.give("first", _tensor(0))
    giving.end_step()
    kept = [taking.take("first")]
    taking.end_step()
    assert taking.keeps
    kept.clear()
    done = beside.submit(lambda: [(giving.give("first", _tensor(step)), giving.end_step()) for step in (1, 2, 3)])
    assert taking.take("first").equal(_tensor(1))
    taking.end_step()
    # Steps 2 and 3 need both frames.
    done.result(PATIENCE)


@pytest.mark.parametrize("waits", ["taker", "giver"])
def test_a_waiting_partner_wakes_up_at_once_and_names_who_is_gone(
    waits: str, way: Way, beside: ThreadPoolExecutor, pair: Pair
) -> None:
    giving, taking = pair(way)
    for step in range(2):
        giving.give("first", _tensor(step))
        giving.end_step()
    if waits == "giver":
        waiting: Future[Any] = beside.submit(giving.give, "first", _tensor(2))
        assert _is_waiting(waiting)
        taking.close()
        words = "learner giver: the link to taker ended"
    else:
        waiting = beside.submit(taking.take, "second")
        assert _is_waiting(waiting)
        giving.close()
        words = "learner taker: the link to giver ended"
    with pytest.raises(LostStep, match=words):
        waiting.result(PATIENCE)


def test_what_was_given_before_the_end_can_still_be_taken(way: Way, pair: Pair) -> None:
    giving, taking = pair(way)
    giving.give("first", _tensor(0))
    giving.close()
    assert taking.take("first").equal(_tensor(0))
    taking.end_step()
    with pytest.raises(LostStep):
        taking.take("first")


def test_a_message_that_is_larger_than_its_program_says_is_refused(way: Way, pair: Pair) -> None:
    giving, _ = pair(way)
    with pytest.raises(LearnerError, match=r"learner giver: gives taker 'first' of 262,144 bytes"):
        giving.give("first", torch.zeros(4 * NUMBERS, 2))


@dataclass
class SlowCopies:
    """As of a GPU: a copy is finished only when the test says so."""

    device = torch.device("cpu")
    lends = False
    finished: threading.Event = field(default_factory=threading.Event)
    prepared: int = 0

    def prepare(self, memory: Any) -> None:
        self.prepared += memory.nbytes

    def put(self, tensor: Tensor, place: Tensor) -> Callable[[], None]:
        def finish() -> None:
            assert self.finished.wait(PATIENCE)
            place.copy_(tensor)

        return finish

    def get(self, place: Tensor) -> tuple[Tensor, Callable[[], None]]:
        return place.clone(), lambda: self.finished.wait(PATIENCE) and None


def test_a_message_is_announced_when_its_copy_is_finished(way: Way, beside: ThreadPoolExecutor, pair: Pair) -> None:
    """And the learner that gives it goes on meanwhile, in order."""
    copies = SlowCopies()
    giving, taking = pair(way, lambda: copies)
    assert copies.prepared == 2 * ROUTE.bytes
    giving.give("first", _tensor(0))
    giving.give("second", _tensor(1))
    waiting = beside.submit(taking.take, "first")
    assert _is_waiting(waiting)
    copies.finished.set()
    assert waiting.result(PATIENCE).equal(_tensor(0))
    assert taking.take("second").equal(_tensor(1))


def test_a_frame_is_given_back_when_its_copy_is_finished(beside: ThreadPoolExecutor, meet: Meet) -> None:
    slow = SlowCopies()
    links = meet((ROUTE,), "memory")
    giving, taking = links["giver"].giving["taker"], links["taker"].taking["giver"]
    taking._copies = slow
    giving.give("first", _tensor(0))
    assert taking.take("first").equal(_tensor(0))
    ended = beside.submit(taking.end_step)
    assert _is_waiting(ended)
    slow.finished.set()
    ended.result(PATIENCE)
    assert not taking.keeps


def test_whoever_waits_for_a_gpu_notices_that_the_partner_is_gone(beside: ThreadPoolExecutor) -> None:
    """NCCL itself would wait; the connection ends at once, also behind credits that nobody has read."""
    own, others = socket.socketpair()
    member = beside.submit(InGroup, others, 1, torch.device("cpu"))
    group = InGroup(own, 0, torch.device("cpu"))
    member.result(PATIENCE)

    class Unfinished:
        def query(self) -> bool:
            return False

    waiting = beside.submit(group._wait_for, Unfinished())
    assert _is_waiting(waiting)
    others.sendall(b"\0")
    others.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionResetError):
        waiting.result(PATIENCE)


def test_nothing_lies_in_shared_memory_or_in_a_folder(pair: Pair) -> None:
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    giving, taking = pair("memory")
    giving.give("first", _tensor(0))
    assert taking.take("first").equal(_tensor(0))
    after = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    # Ray's own files come and go.
    assert not [path for path in after - before if "ray" not in path.name and "plasma" not in path.name]


def test_what_is_changed_after_it_was_given_is_found_out(pair: Pair) -> None:
    """A large message is copied while its learner goes on."""
    route = Route("giver", "taker", ("first",), 4 * 2**20)
    giving, taking = pair("memory", route=route)
    tensor = torch.zeros(2**20)
    post, held = giving._post, list[Any]()
    giving._post = lambda *item: held.append(item)  # type: ignore[method-assign]
    giving.give("first", tensor)
    tensor.add_(1)
    giving._post = post  # type: ignore[method-assign]
    post(*held[0])
    with pytest.raises(LostStep, match="the link to giver ended"):
        taking.take("first")
    with pytest.raises(LearnerError, match="learner giver: what it gave taker was changed in place after it was given"):
        giving.give("first", tensor)

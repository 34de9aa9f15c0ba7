"""Do messages cross direct links between learners on one GPU, in its own memory and through the host's?

Needs a GPU; everything but what its driver does is tested without one in `test_links.py` and
`test_rendezvous.py`.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import pytest
import torch

from engine.runtimes.ray.links import Links, PlannedLink, Rendezvous, Route, Way, copies_for
from engine.runtimes.ray.links.rendezvous import SECRET_BYTES

STEPS = 20
ROUTE = Route("giver", "taker", ("features", "labels"), 2**23)
PATIENCE = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def _features(step: int) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(step)
    images = torch.randn(64, 16, 32, 32, device="cuda", generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def _take(way: Way, pipe: Connection) -> None:
    torch.cuda.init()
    rendezvous = Rendezvous("taker", None)
    pipe.send(rendezvous.address)
    links = rendezvous.meet(
        [PlannedLink(ROUTE, way, True, rendezvous.address)],
        bytes(SECRET_BYTES),
        copies_for(torch.device("cuda")),
        PATIENCE,
    )
    end, right = links.taking["giver"], list[bool]()
    for step in range(STEPS):
        features, labels = end.take("features"), end.take("labels")
        # The learner computes with what it took, while the giver is at the next steps.
        right.append(bool((features * 2).equal(_features(step) * 2)) and labels.tolist() == [step])
        end.end_step()
    pipe.send(right)
    pipe.recv()


@pytest.mark.parametrize("way", ["gpu_memory", "memory"])
def test_features_cross_between_two_processes_on_one_gpu(way: Way) -> None:
    processes = multiprocessing.get_context("spawn")
    pipe, other = processes.Pipe()
    taker = processes.Process(target=_take, args=(way, other), daemon=True)
    taker.start()
    try:
        assert pipe.poll(PATIENCE)
        link = PlannedLink(ROUTE, way, True, pipe.recv())
        links: Links = Rendezvous("giver", None).meet(
            [link], bytes(SECRET_BYTES), copies_for(torch.device("cuda")), PATIENCE
        )
        end = links.giving["taker"]
        for step in range(STEPS):
            end.give("features", _features(step))
            end.give("labels", torch.tensor([step], device="cuda"))
            end.end_step()
        assert pipe.poll(PATIENCE)
        assert pipe.recv() == [True] * STEPS
        pipe.send("done")
    finally:
        taker.join(10)
        taker.kill()

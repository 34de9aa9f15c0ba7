"""Do branches teach a network as DSL and DHM have it, and the same wherever the branches are?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives import (
    BranchHead,
    BranchMimicry,
    Classification,
    Context,
    Objective,
    as_message,
    kept_directions,
    kl_divergence,
)
from engine.recipes import Directions
from engine.streams import seeded
from tests.objectives.branched_network import (
    BATCH,
    CLASSES,
    FORKS,
    INPUTS,
    LABELS,
    NAMES,
    ORIGIN,
    assert_equal,
    branches_of,
    gradients_of,
    heads_of,
    logits_of,
    network_of,
    observed_of,
    precision,
    step,
)

RULES = get_args(Directions)


def naive_loss(logits: Mapping[str, Tensor], kept: Tensor, weight: float, temperature: float, label: float) -> Tensor:
    """Return the branches' loss with all pairs one by one; those that are off have no gradient."""
    loss = torch.zeros(())
    for student, (name, own) in enumerate(logits.items()):
        if name != "main":
            loss = loss + label * F.cross_entropy(own, LABELS)
        for teacher, other in enumerate(logits.values()):
            if teacher != student:
                log_p, log_q = ((each / temperature).log_softmax(dim=1) for each in (other.detach(), own))
                divergence = temperature**2 * (log_p.exp() * (log_p - log_q)).sum() / BATCH
                loss = loss + weight * (divergence if kept[student, teacher] else divergence.detach())
    return loss


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("weight", "temperature", "label_weight"), [(1.0, 1.0, 1.0), (0.3, 3.0, 0.5)])
def test_loss_and_gradients_are_those_of_the_double_loop(
    rule: Directions, weight: float, temperature: float, label_weight: float
) -> None:
    heads = heads_of()
    settings = {"weight": weight, "temperature": temperature, "label_weight": label_weight, "directions": rule}
    total, gradients, _ = step(branches_of(heads, keep=0.5, **settings))
    network = network_of()
    logits, _ = logits_of(heads, network)
    kept = kept_directions(rule, 3, 0.5, *ORIGIN, 1, 3)
    expected = F.cross_entropy(logits["main"], LABELS) + naive_loss(logits, kept, weight, temperature, label_weight)
    for head in heads:
        head.zero_grad()
    expected.backward()
    torch.testing.assert_close(total, expected.detach())
    for name, gradient in gradients_of(network, {head.name: head for head in heads}).items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=1e-4)


def test_weight_0_is_deep_supervision_to_the_last_bit() -> None:
    plain = step(branches_of())
    mimicking = step(branches_of(weight=0.0, temperature=3.0, directions="sampled", keep=0.5))
    assert torch.equal(plain[0], mimicking[0])
    assert_equal(plain[1], mimicking[1])
    assert_equal(plain[2], mimicking[2])
    assert not any("mimicry" in name or "directions" in name for name in plain[2])


def test_no_kept_direction_is_deep_supervision_with_another_value() -> None:
    plain, nobody = step(branches_of()), step(branches_of(weight=1.0, directions="bernoulli", keep=0.0))
    everyone = step(branches_of(weight=1.0))
    assert_equal(plain[1], nobody[1])
    assert torch.equal(nobody[0], everyone[0]) and nobody[0] > plain[0]
    assert any(not torch.equal(each, nobody[1][name]) for name, each in everyone[1].items())


def test_without_weights_the_network_learns_from_its_own_labels_alone() -> None:
    _, gradients, _ = step(branches_of(label_weight=0.0))
    network = network_of()
    F.cross_entropy(network(INPUTS)[0], LABELS).backward()
    for name, gradient in gradients_of(network, {}).items():
        assert torch.equal(gradients[name], gradient)
    # The optimizer decays weights that have a gradient, if only of 0.
    assert all(torch.equal(each, 0 * each) for name, each in gradients.items() if not name.startswith("network"))
    assert len([name for name in gradients if name.startswith("deep")]) == 6


def learn_apart(
    rule: Directions, weight: float, label_weight: float, dropout: float, half: bool
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return gradients and records of a network and branches that are learners of their own."""
    network, heads = network_of(), heads_of(dropout)
    settings: dict[str, Any] = {"origin": ORIGIN, "temperature": 2.0, "directions": rule, "keep": 0.5}

    def objective(own: str, label: float) -> Objective:
        said = {name: f"said_{name}" for name in NAMES if name != own}
        terms = {"cross_entropy": Classification(), "branch_mimicry": BranchMimicry(own, NAMES, said, **settings)}
        return Objective(terms, {"cross_entropy": label, "branch_mimicry": weight})

    with precision(half):
        logits, hooked = network(INPUTS)
        sent = {fork: as_message(each).detach().requires_grad_() for fork, each in hooked.items()}
        outputs = {"main": logits}
        for head in heads:
            with seeded(ORIGIN[0], f"{ORIGIN[1]}_{head.name}", "forward", 1, 3):
                outputs[head.name] = head(sent[head.fork])
        messages = {f"said_{name}": as_message(each).detach() for name, each in outputs.items()}
        values = {}
        for name, each in outputs.items():
            context = Context(LABELS, messages=messages, epoch=1, step=3)
            values[name] = objective(name, 1.0 if name == "main" else label_weight)(each, context)
    for head in heads:
        values[head.name].total.backward()
    taken = [sent[fork].grad for fork in hooked]
    assert all(each is not None for each in taken)
    given = [each.to(tap.dtype) for each, tap in zip(taken, hooked.values(), strict=True) if each is not None]
    torch.autograd.backward([values["main"].total, *hooked.values()], [None, *given])
    records = {name: each.item() for value in values.values() for name, each in value.observed.items()}
    return gradients_of(network, {head.name: head for head in heads}), records


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_branches_that_are_learners_of_their_own_learn_the_same_to_the_last_bit(
    rule: Directions, half: bool, dropout: float
) -> None:
    settings = {"weight": 0.7, "label_weight": 0.3, "temperature": 2.0, "directions": rule, "keep": 0.5}
    _, gradients, observed = step(branches_of(heads_of(dropout), **settings), half=half)
    apart, records = learn_apart(rule, 0.7, 0.3, dropout, half)
    assert_equal(gradients, apart)
    assert records == {name: observed[name].item() for name in records}
    assert len(records) == 7


def test_half_precision_rounds_the_messages_and_not_the_losses() -> None:
    total, gradients, observed = step(branches_of(weight=1.0), half=True)
    exact = step(branches_of(weight=1.0))
    assert total.dtype == torch.float32
    assert not torch.equal(total, exact[0])
    torch.testing.assert_close(total, exact[0], rtol=2e-2, atol=0.0)
    assert all(each.isfinite().all() for each in [*gradients.values(), *observed.values()])


@pytest.mark.parametrize("number", [0, 3])
def test_dropout_is_drawn_from_a_stream_of_the_branch(number: int) -> None:
    heads = heads_of(dropout=0.5)
    before = torch.random.get_rng_state()
    first, again = step(branches_of(heads), number=number), step(branches_of(heads), number=number)
    assert torch.equal(before, torch.random.get_rng_state())
    assert_equal(first[1], again[1])
    other = step(branches_of(heads), number=number + 1)
    assert not torch.equal(first[0], other[0])


def test_images_without_a_label_count_in_the_mimicry_alone() -> None:
    some, none = LABELS.clone(), torch.full((BATCH,), -1)
    some[::3] = -1
    heads = heads_of()
    logits, hooked = logits_of(heads, network_of())
    labelled = some >= 0
    term = branches_of(heads, weight=1.0)
    value = term(logits["main"], Context(some, hooked=hooked, predictions=logits["main"]))
    observed = observed_of(value)
    pull = naive_loss(logits, kept_directions("all", 3, 1.0, *ORIGIN, 0, 0), 1.0, 1.0, 0.0)
    for name in ("near_top", "deep"):
        expected = F.cross_entropy(logits[name][labelled], some[labelled])
        assert observed[f"branches/cross_entropy/{name}"] == pytest.approx(expected.item(), rel=1e-5)
        pull = pull + expected
    torch.testing.assert_close(value.loss, pull)
    hits = logits["deep"].argmax(dim=1)[labelled] == some[labelled]
    assert observed["branches/accuracy/deep"] == pytest.approx(hits.float().mean().item())
    value = term(logits["main"], Context(none, hooked=hooked, predictions=logits["main"]))
    torch.testing.assert_close(value.loss, naive_loss(logits, torch.ones(3, 3, dtype=torch.bool), 1.0, 1.0, 0.0))
    assert {name: each for name, each in observed_of(value).items() if "accuracy" in name or "entropy" in name} == {
        **{f"branches/accuracy/{name}": 0.0 for name in (*NAMES, "ensemble")},
        **{f"branches/cross_entropy/{name}": 0.0 for name in FORKS},
    }


def test_records_say_who_learned_what_from_whom() -> None:
    heads = heads_of()
    logits, hooked = logits_of(heads, network_of())
    term = branches_of(heads, weight=0.5, temperature=2.0, directions="to_main")
    observed = observed_of(term(logits["main"], Context(LABELS, hooked=hooked, predictions=logits["main"])))
    ensemble = torch.stack([each.softmax(dim=1) for each in logits.values()]).mean(dim=0)
    expected = {"branches/directions_kept": 2 / 6}
    for student, own in logits.items():
        hits = own.argmax(dim=1) == LABELS
        expected[f"branches/accuracy/{student}"] = hits.float().mean().item()
        if student != "main":
            expected[f"branches/cross_entropy/{student}"] = F.cross_entropy(own, LABELS).item()
        for teacher, other in logits.items():
            if teacher != student:
                divergence = kl_divergence(other, own, 2.0).item()
                expected[f"branches/mimicry/{student}<-{teacher}"] = divergence
    expected["branches/accuracy/ensemble"] = (ensemble.argmax(dim=1) == LABELS).float().mean().item()
    assert observed == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_without_a_head_of_the_network_the_branches_mimic_one_another(rule: Directions) -> None:
    heads = heads_of()
    logits, hooked = logits_of(heads, network_of())
    value = branches_of(heads, weight=0.5, directions=rule, keep=0.5)(logits["main"], Context(LABELS, hooked=hooked))
    del logits["main"]
    kept = kept_directions(rule, 3, 0.5, *ORIGIN, 0, 0)[1:, 1:]
    expected = naive_loss(logits, kept, 0.5, 1.0, 1.0)
    torch.testing.assert_close(value.loss, expected)
    parameters = [each for head in heads for each in head.parameters()]
    for mine, other in zip(
        torch.autograd.grad(value.loss, parameters, retain_graph=True),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)
    assert "branches/accuracy/main" not in value.observed
    assert value.observed["branches/directions_kept"].item() == kept.sum() / 2


def test_a_lone_branch_without_a_head_of_the_network_has_nobody_to_mimic() -> None:
    heads = heads_of()[:1]
    _, hooked = network_of()(INPUTS)
    value = branches_of(heads, weight=1.0)(hooked["high"], Context(LABELS, hooked=hooked))
    torch.testing.assert_close(value.loss, F.cross_entropy(heads[0](hooked["high"]), LABELS))


def test_heads_are_named_in_the_state_and_taps_name_each_fork_once() -> None:
    with seeded("branches", "again"):
        extra = BranchHead("deep3", "low", nn.Linear(6, CLASSES))
    term = branches_of([*heads_of(), extra])
    assert term.hooks == ("high", "low")
    assert "heads.deep3.blocks.weight" in term.state_dict()
    assert not term.needs_labels

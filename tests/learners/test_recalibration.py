"""Does recalibration give the batches' mean statistics, and change nothing else?"""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine import backbones
from engine.learners.recalibration import Recalibration
from engine.recipes.backbone import Backbone

STATISTICS = ("running_mean", "running_var")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.ReLU(), nn.BatchNorm1d(2))


def resnet() -> nn.Sequential:
    return backbones.build(Backbone(name="resnet14", widths=(4, 4, 8)), 10, (3, 16, 16), seed=0)


def batches(*sizes: int, shape: tuple[int, ...] = (3, 16, 16)) -> list[Tensor]:
    stream = torch.Generator().manual_seed(7)
    return [index + torch.randn(size, *shape, generator=stream) for index, size in enumerate(sizes)]


def recalibrate(body: nn.Module, inputs: list[Tensor]) -> None:
    recalibration = Recalibration(body)
    for batch in inputs:
        recalibration.add(batch)
    recalibration.finish()


def states_equal(one: nn.Module, other: nn.Module, but: tuple[str, ...] = ()) -> bool:
    states = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(torch.equal(a, b) for (key, a), (_, b) in states if not key.endswith(but))


def biased(values: list[list[float]]) -> tuple[list[float], list[float]]:
    columns = list(zip(*values, strict=True))
    means = [sum(column) / len(column) for column in columns]
    pairs = zip(columns, means, strict=True)
    return means, [sum((value - mean) ** 2 for value in column) / len(column) for column, mean in pairs]


def test_two_batch_norms_get_what_is_worked_out_by_hand() -> None:
    body = small().double()
    weight, bias = body[1].weight.tolist(), body[1].bias.tolist()
    inputs = [batch.double() for batch in batches(4, 6, shape=(3,))]
    expected = [[0.0] * 3, [0.0] * 3, [0.0] * 2, [0.0] * 2]
    for batch in inputs:
        rows = batch.tolist()
        first = biased(rows)
        # What the second one sees depends on the statistics of the batch in the first one.
        normalised = [
            [(x - mean) / (variance + 1e-5) ** 0.5 for x, mean, variance in zip(row, *first, strict=True)]
            for row in rows
        ]
        hidden = [
            [
                max(sum(w * x for w, x in zip(line, row, strict=True)) + b, 0.0)
                for line, b in zip(weight, bias, strict=True)
            ]
            for row in normalised
        ]
        for sums, statistics in zip(expected, (*first, *biased(hidden)), strict=True):
            for channel, value in enumerate(statistics):
                sums[channel] += value * len(rows) / 10
    recalibrate(body, inputs)
    found = [getattr(body[place], name).tolist() for place in (0, 3) for name in STATISTICS]
    for values, sums in zip(found, expected, strict=True):
        assert values == pytest.approx(sums, rel=1e-12)


def test_a_single_batch_gives_its_own_statistics() -> None:
    body, reference = resnet(), resnet()
    (images,) = batches(8)
    recalibrate(body, [images])
    seen: dict[str, Tensor] = {}
    for name, module in reference.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, inputs, name=name: seen.update({name: inputs[0].detach()}))
    reference(images)
    assert len(seen) > 10
    for name, features in seen.items():
        norm = body.get_submodule(name)
        torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, features.var((0, 2, 3), correction=0))


def test_evaluation_with_the_statistics_of_a_batch_is_what_training_computed_on_it() -> None:
    body = resnet()
    (images,) = batches(8)
    recalibrate(body, [images])
    torch.testing.assert_close(copy.deepcopy(body).train()(images), body.eval()(images))


def test_only_running_statistics_change_and_only_at_the_end() -> None:
    body = resnet()
    body(batches(4)[0]).sum().backward()
    body.get_submodule("layer2_0").eval()
    body.get_submodule("layer1_0.bn1").momentum = None
    modes = [module.training for module in body.modules()]
    gradients = [parameter.grad.clone() for parameter in body.parameters()]
    before = copy.deepcopy(body)
    recalibration = Recalibration(body)
    for images in batches(4, 6):
        recalibration.add(images)
    assert states_equal(body, before)
    recalibration.finish()
    assert states_equal(body, before, but=STATISTICS)
    for name, buffer in body.named_buffers():
        assert name.endswith(STATISTICS) != torch.equal(buffer, before.get_buffer(name)), name
    assert [module.training for module in body.modules()] == modes
    assert all(torch.equal(p.grad, g) for p, g in zip(body.parameters(), gradients, strict=True))
    assert all(module.track_running_stats for module in body.modules() if isinstance(module, nn.BatchNorm2d))
    assert not any(module._forward_pre_hooks for module in body.modules())


def test_the_same_batches_give_the_same_bits_whatever_the_statistics_were() -> None:
    body = resnet()
    inputs = batches(4, 6, 3)
    recalibrate(body, inputs)
    once = copy.deepcopy(body)
    recalibrate(body, inputs)
    assert states_equal(body, once)
    for _ in range(3):
        body(100 * inputs[0])
    assert not states_equal(body, once)
    recalibrate(body, inputs)
    assert states_equal(body, once, but=("num_batches_tracked",))


def test_the_order_of_batches_does_not_matter() -> None:
    body, other = resnet(), resnet()
    inputs = batches(4, 6, 3)
    recalibrate(body, inputs)
    recalibrate(other, inputs[::-1])
    for name in ("stem.bn1", "layer3_1.bn2"):
        for statistic in STATISTICS:
            torch.testing.assert_close(
                getattr(body.get_submodule(name), statistic), getattr(other.get_submodule(name), statistic)
            )


def test_training_goes_on_as_if_nothing_had_been_measured() -> None:
    bodies = [resnet(), resnet()]
    for measured, body in enumerate(bodies):
        optimizer = torch.optim.SGD(body.parameters(), lr=0.1, momentum=0.9)
        for step, images in enumerate(batches(4, 4, 4)):
            if measured and step:
                recalibrate(body, batches(8))
            optimizer.zero_grad()
            body(images).square().mean().backward()
            optimizer.step()
    assert states_equal(*bodies, but=STATISTICS)


def test_nothing_is_dropped_and_no_random_number_drawn() -> None:
    def body(*between: nn.Module) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 3), *between, nn.BatchNorm1d(3))

    wet = body(nn.Dropout(0.9), torchvision.ops.StochasticDepth(0.9, "batch"))
    dry = body()
    inputs = batches(4, 6, shape=(3,))
    state = torch.get_rng_state()
    recalibrate(wet, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    recalibrate(dry, inputs)
    assert all(torch.equal(getattr(wet[-1], name), getattr(dry[-1], name)) for name in STATISTICS)
    assert wet[1].training


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.never = nn.BatchNorm1d(3)
        self.without = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, values: Tensor) -> Tensor:
        return self.without(self.norm(values) + self.norm(3 * values))


def test_a_batch_norm_called_twice_gets_the_mean_and_others_stay() -> None:
    body = Twice()
    inputs = batches(4, 6, shape=(3,))
    recalibrate(body, inputs)
    means = [batch.mean(0) for batch in inputs]
    torch.testing.assert_close(body.norm.running_mean, 2 * (4 * means[0] + 6 * means[1]) / 10)
    variances = [batch.var(0, correction=0) for batch in inputs]
    torch.testing.assert_close(body.norm.running_var, 5 * (4 * variances[0] + 6 * variances[1]) / 10)
    assert torch.equal(body.never.running_mean, torch.zeros(3))
    assert torch.equal(body.never.running_var, torch.ones(3))
    assert body.without.running_mean is None
    assert not body.without.track_running_stats


def test_without_a_batch_everything_stays() -> None:
    body, before = resnet(), resnet()
    recalibrate(body, [])
    assert states_equal(body, before)


def test_a_batch_that_fails_leaves_no_trace() -> None:
    body = small()
    before = copy.deepcopy(body)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Recalibration(body).add(torch.randn(1, 3))
    assert states_equal(body, before)
    assert all(module.training for module in body.modules())
    assert body[0].track_running_stats
    assert not body[0]._forward_pre_hooks


def test_a_sub_network_has_statistics_of_its_own() -> None:
    whole, alone = resnet(), resnet()
    kept = nn.Sequential(OrderedDict((name, child) for name, child in alone.named_children() if name != "layer2_1"))
    inputs = batches(4, 6)
    recalibrate(whole, inputs)
    recalibrate(kept, inputs)
    untouched = resnet()
    for name, child in alone.named_children():
        if name == "layer2_1":
            assert states_equal(child, untouched.get_submodule(name))
        else:
            # Only what comes after the dropped block sees other features.
            assert states_equal(child, whole.get_submodule(name)) != name.startswith("layer3"), name


def test_low_precision_features_are_summed_in_full() -> None:
    body = nn.Sequential(nn.BatchNorm2d(1))
    images = (256 + torch.arange(64.0)).reshape(1, 1, 8, 8).repeat(4, 1, 1, 1)
    recalibrate(body, [images.half()] * 50)
    torch.testing.assert_close(body[0].running_mean, images.mean().reshape(1))
    torch.testing.assert_close(body[0].running_var, images.var(correction=0).reshape(1))


def test_a_compiled_body_is_measured_too() -> None:
    plain, compiled = small(), small()
    inputs = batches(4, shape=(3,))
    compiled.compile(backend="eager")
    compiled.eval()(inputs[0])
    recalibrate(plain, inputs)
    recalibrate(compiled, inputs)
    assert states_equal(plain, compiled)
    assert not torch.equal(compiled[3].running_mean, torch.zeros(2))

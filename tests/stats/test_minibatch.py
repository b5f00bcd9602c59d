from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from layerscope.stats.minibatch import TRUST, Heads, MinibatchPlan, Optimiser, train_heads
from layerscope.stats.schedules import Constant, Cosine, Exponential, Schedule, Steps

CLASSES, RATES = 3, (0.3, 0.01)
OPTIMISERS = {
    "sgd": (Optimiser("sgd", decay=1e-3), torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (
        Optimiser("sgd", nesterov=True, decay=1e-3),
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
    ),
    "adam": (Optimiser("adam", decay=1e-3), torch.optim.Adam, {}),
    "adamw": (Optimiser("adamw", decay=1e-3), torch.optim.AdamW, {}),
}


def problem(n: int = 60, d: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % CLASSES
    centres = torch.randn(CLASSES, d, generator=generator)
    return centres[labels] + torch.randn(n, d, generator=generator), labels


def plan(optimiser: Optimiser, steps: int, batch: int = 60, schedule: Schedule | None = None):
    return MinibatchPlan(optimiser, schedule or Constant(), steps, per_epoch=10, batch=batch)


def trained(optimiser: Optimiser, steps: int, rates=RATES, **more) -> Heads:
    rows, labels = problem()
    return train_heads(rows, labels, CLASSES, rates, plan(optimiser, steps, **more), seed=0)


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_every_head_moves_as_torch_moves_it_alone(name):
    optimiser, reference, options = OPTIMISERS[name]
    rows, labels = problem()
    found = trained(optimiser, 7, schedule=Cosine())
    start = trained(optimiser, 0)
    for head, rate in enumerate(RATES):
        layer = torch.nn.Linear(4, CLASSES)
        with torch.no_grad():
            layer.weight.copy_(start.weights[head])
            layer.bias.zero_()
        steps = reference(layer.parameters(), lr=rate, weight_decay=1e-3, **options)
        for turn in range(7):
            for group in steps.param_groups:
                group["lr"] = rate * Cosine()(turn / 10, 0.7)
            steps.zero_grad()
            torch.nn.functional.cross_entropy(layer(rows), labels).backward()
            steps.step()
        torch.testing.assert_close(found.weights[head], layer.weight.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            found.intercepts[head], layer.bias.detach(), rtol=1e-4, atol=1e-6
        )


def lars(weight, bias, decay, memory, rate):
    """LARS of He et al. (2022), in float64: intercepts are as in SGD, the rate is applied last."""
    update = weight.grad + decay * weight
    slopes = {weight: TRUST * weight.norm() / update.norm() * update, bias: bias.grad}
    for parameter, slope in slopes.items():
        memory[parameter] = 0.9 * memory.get(parameter, 0) + slope
        parameter -= rate * memory[parameter]


def larc(weight, bias, decay, memory, rate):
    """SGD of gradients that LARC changed first; what has no length is left alone."""
    for parameter in (weight, bias):
        length, slope = parameter.norm(), parameter.grad.norm()
        if length and slope:
            trust = TRUST * length / (slope + decay * length + 1e-8)
            parameter.grad.add_(parameter, alpha=decay).mul_(trust)
    if "sgd" not in memory:
        memory["sgd"] = torch.optim.SGD([weight, bias], lr=rate, momentum=0.9)
    memory["sgd"].param_groups[0]["lr"] = rate
    memory["sgd"].step()


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize(("kind", "reference"), [("lars", lars), ("larc", larc)])
def test_layerwise_rates_are_those_of_the_codes_step_by_step(kind, reference, decay):
    rows, labels = problem()
    rates, schedule = (0.8, 0.1), Cosine(warmup=0.2)
    optimiser = Optimiser(kind, decay=decay)
    for head, rate in enumerate(rates):
        start = trained(optimiser, 0, rates=rates)
        layer = torch.nn.Linear(4, CLASSES, dtype=torch.float64)
        memory: dict = {}
        with torch.no_grad():
            layer.weight.copy_(start.weights[head])
            layer.bias.zero_()
        for turn in range(8):
            layer.zero_grad()
            torch.nn.functional.cross_entropy(layer(rows.double()), labels).backward()
            with torch.no_grad():
                now = rate * schedule(turn / 10, 0.8)
                reference(layer.weight, layer.bias, decay, memory, now)
            plan_so_far = plan(optimiser, turn + 1, schedule=Until(schedule, 0.8))
            found = train_heads(rows, labels, CLASSES, rates, plan_so_far, seed=0)
            for mine, theirs in ((found.weights, layer.weight), (found.intercepts, layer.bias)):
                torch.testing.assert_close(
                    mine[head].double(), theirs.detach(), rtol=1e-6, atol=1e-6
                )
    assert float(layer.bias.detach().abs().max()) > 1e-3


@dataclass(frozen=True)
class Until:
    """A schedule of a training of which only the beginning is run."""

    schedule: Schedule
    epochs: float

    def __call__(self, epoch: float, epochs: float) -> float:
        return self.schedule(epoch, self.epochs)


@pytest.mark.parametrize(
    ("remainder", "steps", "visits"),
    [
        ("kept", 3, [1] * 9),
        ("left out", 2, [0] + [1] * 8),
        ("left out", 6, None),
        ("carried over", 9, [4] * 9),
    ],
)
def test_rows_that_fill_no_batch_are_kept_left_out_or_carried_over(remainder, steps, visits):
    # One feature a row: its weights move by as much as the row was seen.
    rows, labels = torch.eye(9), torch.zeros(9, dtype=torch.int64)
    optimiser = Optimiser("sgd", momentum=0.0)
    ways = (replace(plan(optimiser, it, batch=4), remainder=remainder) for it in (0, steps))
    before, after = (train_heads(rows, labels, 2, (1e-3,), way, seed=0) for way in ways)
    gone = (after.weights - before.weights)[0, 0] / (1e-3 * 0.5)
    if visits is None:
        assert float(gone.sum()) == pytest.approx(6.0, rel=0.03)
    elif remainder == "kept":  # the ninth row is a batch by itself, and counts for four
        assert sorted(gone.tolist()) == pytest.approx([0.25] * 8 + [1.0], rel=0.05)
    else:
        assert sorted(gone.tolist()) == pytest.approx([it / 4 for it in visits], abs=0.03)


def test_the_end_is_that_of_logistic_regression_without_a_penalty():
    rows, labels = problem()
    heads = trained(Optimiser("sgd"), 3000, rates=(0.5,))
    model = LogisticRegression(C=torch.inf, tol=1e-8, max_iter=2000)
    expected = model.fit(rows.numpy(), labels.numpy()).predict_proba(rows.numpy())
    found = torch.softmax(heads.logits(rows)[:, 0], 1)
    torch.testing.assert_close(
        found.double(), torch.from_numpy(expected).double(), atol=1e-3, rtol=0
    )


def test_a_head_that_diverges_harms_no_other():
    optimiser = Optimiser("sgd", decay=1e-3)
    both = trained(optimiser, 200, rates=(1e30, 0.1))
    alone = trained(optimiser, 200, rates=(0.1,))
    assert not both.weights[0].isfinite().all()
    torch.testing.assert_close(both.only(1).weights, alone.weights)


def test_the_seed_decides_the_order_of_the_rows():
    rows, labels = problem()
    short = plan(Optimiser("sgd"), 9, batch=7)
    one, same, other = (train_heads(rows, labels, 3, RATES, short, seed) for seed in (1, 1, 2))
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), (1.0, 1.0, 1.0)),
        (Steps((60, 80)), (1.0, 1.0, 0.01)),
        (Cosine(last=0.01), (1.0, 0.505, 0.01)),
        (Cosine(by_epoch=True), (1.0, 0.5, 0.0)),
        (Cosine(warmup=50), (0.0, 1.0, 0.0)),
        (Exponential(0.5), (1.0, 0.5**50, 0.5**100)),
    ],
)
def test_schedules_begin_and_end_where_they_say(schedule, factors):
    assert [schedule(epoch, 100) for epoch in (0, 50, 100)] == pytest.approx(factors)


def test_a_cosine_by_epoch_is_the_same_within_one():
    by_epoch, by_step = Cosine(by_epoch=True), Cosine()
    assert by_epoch(7.9, 10) == by_epoch(7.0, 10) == by_step(7.0, 10) > by_step(7.9, 10)

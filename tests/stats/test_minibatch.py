from __future__ import annotations

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


def test_lars_takes_steps_of_the_length_that_the_paper_says():
    decay, rate = 0.01, 2.0
    optimiser = Optimiser("lars", decay=decay)
    rows, labels = problem()
    start = trained(optimiser, 0, rates=(rate,))
    p = torch.softmax(start.logits(rows)[:, 0], 1) - torch.nn.functional.one_hot(labels)
    w, slope = start.weights[0], p.T @ rows / 60
    local = TRUST * w.norm() / (slope.norm() + decay * w.norm())
    one = trained(optimiser, 1, rates=(rate,))
    torch.testing.assert_close(one.weights[0], w - rate * local * (slope + decay * w))
    torch.testing.assert_close(one.intercepts[0], -rate * p.mean(0))


def test_the_momentum_of_lars_gathers_the_scaled_steps():
    rows, labels = problem()
    optimiser = Optimiser("lars", momentum=0.5)
    start, one, two = (trained(optimiser, steps, rates=(2.0,)) for steps in (0, 1, 2))
    p = torch.softmax(one.logits(rows)[:, 0], 1) - torch.nn.functional.one_hot(labels)
    w, slope = one.weights[0], p.T @ rows / 60
    step = 2.0 * TRUST * w.norm() / slope.norm() * slope
    before = start.weights[0] - w
    torch.testing.assert_close(two.weights[0], w - (0.5 * before + step))


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
        (Cosine(warmup=50), (0.0, 1.0, 0.0)),
        (Exponential(0.5), (1.0, 0.5**50, 0.5**100)),
    ],
)
def test_schedules_begin_and_end_where_they_say(schedule, factors):
    assert [schedule(epoch, 100) for epoch in (0, 50, 100)] == pytest.approx(factors)

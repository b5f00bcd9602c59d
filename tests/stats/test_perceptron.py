from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from layerscope.stats.perceptron import Perceptron, PerceptronTraining, train

SMALL = PerceptronTraining(hidden=(16, 16), batch=32, epochs=60, rate=1e-2)


def ring(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes that no line tells apart: inside and outside of a circle."""
    rows = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return rows, (rows.norm(dim=1) > 1.2).long()


def never(network: Perceptron) -> tuple[float, ...]:
    return (math.nan,)


def test_it_learns_what_no_line_can():
    rows, labels = ring()

    def validate(network):
        return (float(cross_entropy(network(rows[150:]), labels[150:])),)

    trained = train(rows[:150], labels[:150], 2, cross_entropy, validate, SMALL, seed=0)
    right = trained.best(rows[150:]).argmax(1) == labels[150:]
    assert float(right.double().mean()) > 0.9


def test_without_hidden_layers_it_moves_as_torchs_own():
    rows, labels = ring(32)
    training = PerceptronTraining(hidden=(), batch=32, epochs=3)
    worths = iter((3.0, 2.0, 1.0))
    start: list[Perceptron] = []

    def validate(network):
        return (next(worths),)

    def first(network):
        start.append(network.copy())
        return (1.0,)

    train(
        rows,
        labels,
        2,
        cross_entropy,
        first,
        PerceptronTraining(hidden=(), rate=0.0, epochs=1),
        seed=4,
    )
    found = train(rows, labels, 2, cross_entropy, validate, training, seed=4).best
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(start[0].weights[0])
        layer.bias.copy_(start[0].offsets[0])
    steps = torch.optim.AdamW(layer.parameters(), lr=training.rate, weight_decay=training.decay)
    for _ in range(3):
        steps.zero_grad()
        cross_entropy(layer(rows), labels).backward()
        steps.step()
    torch.testing.assert_close(found.weights[0], layer.weight.detach(), rtol=1e-5, atol=1e-6)


def test_it_stops_when_held_out_rows_stop_improving_and_keeps_the_best():
    rows, labels = ring(64)
    seen: list[Perceptron] = []

    def validate(network):
        seen.append(network.copy())
        return (abs(len(seen) - 4.0),)

    training = PerceptronTraining(hidden=(4,), epochs=100, patience=5)
    trained = train(rows, labels, 2, cross_entropy, validate, training, seed=0)
    assert (trained.at, trained.epochs) == (4, 9)
    assert torch.equal(trained.best.weights[0], seen[3].weights[0])
    assert not trained.best.weights[0].requires_grad


def test_the_seed_decides_everything():
    rows, labels = ring(64)

    def weights(seed):
        validate = iter(range(9, 0, -1))
        training = PerceptronTraining(hidden=(8,), batch=16, epochs=3)
        found = train(rows, labels, 2, cross_entropy, lambda _: (next(validate),), training, seed)
        return found.best.weights[0]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_what_never_has_a_worth_is_told():
    rows, _ = ring(16)
    trained = train(
        rows, rows, 2, mse_loss, never, PerceptronTraining(hidden=(4,), patience=3), seed=0
    )
    assert (trained.at, trained.epochs) == (0, 3)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 7)])
def test_its_outputs_are_those_of_a_chain_of_layers(hidden):
    rows, labels = ring(8)
    training = PerceptronTraining(hidden=hidden, epochs=1)
    found = train(rows, labels, 2, cross_entropy, lambda _: (0.0,), training, seed=0).best
    values = rows
    for i, (weight, offset) in enumerate(zip(found.weights, found.offsets, strict=True)):
        values = values @ weight.T + offset
        values = values.clamp(min=0) if i < len(hidden) else values
    torch.testing.assert_close(found(rows), values)

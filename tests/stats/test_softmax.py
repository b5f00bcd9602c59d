"""Softmax regression: scikit-learn's optimum, and what may not change it."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from layerscope.stats import regularisation_path, softmax
from layerscope.stats.moments import RunningMoments
from layerscope.stats.regularisation_path import solve_path
from layerscope.stats.rows import HeldRows, StreamedRows
from layerscope.stats.softmax import Labelling, solve
from layerscope.stats.spectrum import Spectrum, spectrum


@dataclass
class Problem:
    features: torch.Tensor
    labels: torch.Tensor
    classes: int

    def basis(self, dtype: torch.dtype = torch.float64) -> Spectrum:
        running = RunningMoments(self.features.shape[1])
        running.update(self.features.to(dtype))
        return spectrum(running.compute(), whole=True)

    def rows(self, dtype: torch.dtype = torch.float64) -> HeldRows:
        return HeldRows(self.basis(dtype).standardiser(self.features).to(dtype))

    def objective(self, weights: torch.Tensor, intercept: torch.Tensor, penalty: float) -> float:
        logits = self.rows().features @ weights.T + intercept
        loss = torch.nn.functional.cross_entropy(logits, self.labels)
        return float(loss + penalty / 2 * weights.square().sum())


def planted(n, d, classes, *, decay=1.0, strength=1.0, tail=0.0, seed=0):
    """Rows whose k-th principal deviation is k^(-decay/2), with labels drawn from a linear model.

    With a tail, classes are rare like 1/rank to its power.
    """
    draw = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(d, d, generator=draw, dtype=torch.float64))[0]
    scale = torch.arange(1, d + 1).double() ** (-decay / 2)
    features = torch.randn(n, d, generator=draw, dtype=torch.float64) * scale @ turned
    weights = torch.randn(d, classes, generator=draw, dtype=torch.float64) * strength
    prior = -tail * torch.arange(1, classes + 1).double().log()
    noise = -torch.rand(n, classes, generator=draw, dtype=torch.float64).log()
    labels = (features @ weights + prior - noise.log()).argmax(1)
    _, labels = torch.unique(labels, return_inverse=True)
    return Problem(features, labels, int(labels.max()) + 1)


PROBLEMS = {
    "two classes": (planted(400, 12, 2), 1e-2),
    "two classes, hardly penalised": (planted(400, 12, 2), 1e-5),
    "three classes": (planted(500, 20, 3), 1e-3),
    "ten classes": (planted(1500, 40, 10), 1e-4),
    "more features than rows": (planted(100, 200, 5), 1e-1),
    "two classes, more features than rows": (planted(100, 300, 2), 1e-3),
    "ill-conditioned": (planted(600, 20, 10, decay=6.0), 1e-4),
    "separable": (planted(400, 20, 3, strength=300.0), 1e-3),
    "nearly separable": (planted(1000, 40, 5, strength=30.0), 1e-4),
    "unbalanced": (planted(1500, 20, 20, tail=2.0), 1e-3),
    "a hundred classes": (planted(1000, 20, 100), 1e-2),
    "a thousand classes": (planted(2500, 8, 1000, strength=4.0), 1e-2),
}


@cache
def best(name):
    """What scikit-learn finds, which is what takes the time here."""
    return of_scikit_learn(*PROBLEMS[name])


def of_scikit_learn(problem, penalty, **more):
    n = len(problem.labels)
    model = LogisticRegression(C=1 / (penalty * n), tol=1e-8, max_iter=20_000, **more)
    model.fit(problem.rows().features.numpy(), problem.labels.numpy())
    weights = torch.from_numpy(model.coef_)
    if problem.classes == 2:
        weights = torch.cat((-weights, weights)) / 2
    return weights, model


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("dtype", "gap"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_it_reaches_scikit_learns_optimum(name, dtype, gap):
    problem, penalty = PROBLEMS[name]
    labelling = Labelling(problem.labels, problem.classes)
    wanted = torch.tensor([penalty], dtype=torch.float64)
    basis = problem.basis(dtype)
    (found,) = solve(problem.rows(dtype), basis, [labelling], wanted, gap=gap)
    assert found.convergence.converged.all()
    weights, model = best(name)
    ours = found.weights(basis)[0, 0]
    # Of two classes scikit-learn penalises one vector, of half whose squares ours is the sum.
    factor = 2 if problem.classes == 2 else 1
    logits = problem.rows().features.numpy() @ ours.T.numpy() + found.intercept[0, 0].numpy()
    theirs = -model.predict_log_proba(problem.rows().features.numpy())
    least = theirs[np.arange(len(theirs)), problem.labels].mean()
    least += penalty / 2 * np.square(model.coef_).sum()
    reached = problem.objective(ours, found.intercept[0, 0], penalty * factor)
    assert reached <= least * (1 + gap)
    assert float(found.convergence.objective) == pytest.approx(reached, rel=gap / 3)
    scale = float(weights.abs().max())
    assert float((ours - weights).abs().max()) < 0.01 * scale
    agreement = (logits.argmax(1) == model.predict(problem.rows().features.numpy())).mean()
    assert agreement >= 0.995  # of the few that differ, two classes are equally likely


@pytest.mark.parametrize("name", ["ten classes", "separable", "ill-conditioned", "unbalanced"])
@pytest.mark.parametrize("gap", [1e-3, 1e-4, 1e-5, 1e-6])
def test_the_gap_is_as_small_as_stated(name, gap):
    problem, penalty = PROBLEMS[name]
    ask = problem.rows(), problem.basis(), [Labelling(problem.labels, problem.classes)]
    wanted = torch.tensor([penalty], dtype=torch.float64)
    (best,) = solve(*ask, wanted, gap=1e-11)
    (found,) = solve(*ask, wanted, gap=gap)
    assert 0 <= float(found.convergence.objective / best.convergence.objective) - 1 <= gap


def test_problems_that_are_solved_together_are_solved_as_apart():
    problem = planted(600, 20, 4)
    other = planted(600, 20, 7, seed=1)
    penalties = torch.tensor([1.0, 1e-2, 1e-4], dtype=torch.float64)
    labellings = [Labelling(it.labels, it.classes) for it in (problem, other)]
    ask = problem.rows(), problem.basis()
    together = solve(*ask, labellings, penalties, gap=1e-10)
    for labelling, whole in zip(labellings, together, strict=True):
        for i, penalty in enumerate(penalties):
            (alone,) = solve(*ask, [labelling], penalty[None], gap=1e-10)
            torch.testing.assert_close(alone.rotated[0, 0], whole.rotated[0, i], atol=1e-4, rtol=0)


def test_a_draw_of_rows_is_those_rows_alone():
    problem = planted(500, 10, 3)
    basis, rows = problem.basis(), problem.rows()
    chosen = torch.rand(500, generator=torch.Generator().manual_seed(0)) < 0.4
    weights = torch.stack((chosen.float(), torch.ones(500)))
    penalty = torch.tensor([1e-2], dtype=torch.float64)
    (both,) = solve(rows, basis, [Labelling(problem.labels, 3, weights)], penalty, gap=1e-10)
    subset = HeldRows(rows.features[chosen])
    (part,) = solve(subset, basis, [Labelling(problem.labels[chosen], 3)], penalty, gap=1e-10)
    (whole,) = solve(rows, basis, [Labelling(problem.labels, 3)], penalty, gap=1e-10)
    torch.testing.assert_close(both.rotated[0], part.rotated[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(both.rotated[1], whole.rotated[0], atol=1e-4, rtol=0)


def test_a_row_of_weight_two_counts_twice():
    problem = planted(300, 8, 3)
    basis, rows = problem.basis(), problem.rows()
    weights = torch.ones(1, 300)
    weights[0, :50] = 2
    penalty = torch.tensor([1e-2], dtype=torch.float64)
    (weighed,) = solve(rows, basis, [Labelling(problem.labels, 3, weights)], penalty, gap=1e-10)
    twice = HeldRows(torch.cat((rows.features, rows.features[:50])))
    labels = torch.cat((problem.labels, problem.labels[:50]))
    (repeated,) = solve(twice, basis, [Labelling(labels, 3)], penalty, gap=1e-10)
    torch.testing.assert_close(weighed.rotated, repeated.rotated, atol=1e-4, rtol=0)


def test_class_weights_are_scikit_learns():
    problem, _ = PROBLEMS["unbalanced"]
    count = torch.bincount(problem.labels).double()
    of_class = len(problem.labels) / (problem.classes * count)
    weights = of_class[problem.labels][None]
    # scikit-learn's penalty goes with the sum of the weights, which is n for balanced ones.
    penalty = 1e-2
    labelling = Labelling(problem.labels, problem.classes, weights)
    basis = problem.basis()
    (found,) = solve(problem.rows(), basis, [labelling], torch.tensor([penalty]).double(), gap=1e-9)
    weights, _ = of_scikit_learn(problem, penalty, class_weight="balanced")
    torch.testing.assert_close(found.weights(basis)[0, 0], weights, atol=1e-3, rtol=0)


def test_a_class_that_a_draw_lacks_has_no_weights_and_no_probability():
    problem = planted(400, 8, 4)
    weights = torch.stack(((problem.labels != 2).float(), torch.ones(400)))
    penalties = torch.tensor([1e-1, 1e-3], dtype=torch.float64)
    ask = problem.rows(), problem.basis(), [Labelling(problem.labels, 4, weights)], penalties
    (found,) = solve(*ask, gap=1e-9)
    assert found.convergence.converged.all()
    assert not found.rotated[0, :, 2].any()
    assert (found.intercept[0, :, 2] == -math.inf).all()
    assert found.intercept[1].isfinite().all()
    kept = problem.labels != 2
    labels = problem.labels[kept] - (problem.labels[kept] > 2).long()
    rows = HeldRows(problem.rows().features[kept])
    (three,) = solve(rows, problem.basis(), [Labelling(labels, 3)], penalties, gap=1e-9)
    torch.testing.assert_close(found.rotated[0][:, [0, 1, 3]], three.rotated[0], atol=1e-4, rtol=0)


def test_rows_that_are_read_for_every_pass_give_the_same():
    problem = planted(2500, 12, 5)
    basis, penalties = problem.basis(), torch.tensor([1e-1, 1e-3], dtype=torch.float64)
    streamed = StreamedRows(
        lambda: iter(torch.split(problem.features, 700)), basis.standardiser, torch.float64
    )
    labelling = [Labelling(problem.labels, 5)]
    (read,) = solve(streamed, basis, labelling, penalties, gap=1e-8)
    (held,) = solve(problem.rows(), basis, labelling, penalties, gap=1e-8)
    torch.testing.assert_close(read.rotated, held.rotated, atol=1e-5, rtol=0)


def test_a_path_in_parts_is_the_path(monkeypatch):
    problem = planted(800, 20, 6)
    ask = problem.rows(), problem.basis(), [Labelling(problem.labels, 6)]
    penalties = torch.logspace(0, -4, 9, dtype=torch.float64)
    (whole,) = solve(*ask, penalties, gap=1e-9)
    monkeypatch.setattr(regularisation_path, "TOGETHER", 2 * 6 * 21)
    (parts,) = solve_path(*ask, penalties, gap=1e-9)
    assert whole.convergence.converged.all()
    assert parts.convergence.converged.all()
    assert parts.rotated.shape == whole.rotated.shape
    assert parts.convergence.passes[0, 2:].sum() < whole.convergence.passes[0, 2:].sum()
    torch.testing.assert_close(parts.rotated, whole.rotated, atol=1e-3, rtol=0)


@pytest.mark.parametrize("gap", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("strength", [1.0, 20.0])
def test_the_gap_of_a_path_is_as_small_as_stated(gap, strength):
    problem = planted(1500, 40, 7, strength=strength)
    ask = problem.rows(), problem.basis(), [Labelling(problem.labels, 7)]
    penalties = torch.logspace(0, -5, 11, dtype=torch.float64)
    (best,) = solve(*ask, penalties, gap=1e-10)
    (found,) = solve_path(*ask, penalties, gap=gap)
    left = found.convergence.objective / best.convergence.objective - 1
    assert found.convergence.converged.all()
    assert 0 <= float(left.max()) <= gap


def test_curvature_at_another_penalty_differs_by_the_penalties_on_weights_alone():
    problem = planted(400, 6, 3)
    penalties = torch.tensor([1e-1, 1e-2], dtype=torch.float64)
    (found,) = solve(
        problem.rows(), problem.basis(), [Labelling(problem.labels, 3)], penalties, gap=1e-9
    )
    known = found.curvature
    assert known.pairs
    for pair, there in zip(
        known.pairs, known.at(torch.tensor([0.5, 2.0]).double(), 2), strict=True
    ):
        for place, penalty in enumerate((0.5, 2.0)):
            step = pair.step[0].view(3, 7)
            more = (there.change[place] - pair.change[0]).view(3, 7)
            torch.testing.assert_close(more[:, :-1], (penalty - 1e-2) * step[:, :-1])
            assert not more[:, -1].any()


def test_draws_that_end_at_different_times_hand_on_their_curvature():
    problem = planted(900, 12, 4)
    draw = torch.Generator().manual_seed(0)
    weights = (torch.rand(3, 900, generator=draw) < torch.tensor([[0.05], [0.5], [1.0]])).double()
    penalties = torch.logspace(0, -4, 9, dtype=torch.float64)
    ask = problem.rows(), problem.basis()
    (together,) = solve_path(*ask, [Labelling(problem.labels, 4, weights)], penalties, gap=1e-10)
    for place in range(3):
        lone = Labelling(problem.labels, 4, weights[place : place + 1])
        (alone,) = solve(*ask, [lone], penalties, gap=1e-10)
        torch.testing.assert_close(together.rotated[place], alone.rotated[0], atol=1e-3, rtol=1e-3)


def test_what_is_given_up_says_so(monkeypatch):
    monkeypatch.setattr(softmax, "PASSES", 3)
    problem, penalty = PROBLEMS["ten classes"]
    labelling = [Labelling(problem.labels, problem.classes)]
    (found,) = solve(
        problem.rows(), problem.basis(), labelling, torch.tensor([penalty]).double(), gap=1e-6
    )
    assert not found.convergence.converged.any()
    assert int(found.convergence.passes) == 3
    assert float(found.convergence.gap) > 1e-7


def test_probabilities_of_enormous_logits_are_those_of_shifted_ones():
    logits = torch.tensor([[0.0, 500.0, 499.0, -700.0, 90.0, 89.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    chosen = torch.tensor([[2, 3], [0, 5]])  # a column of each of two problems of three classes
    p, surprise = softmax._softmax(logits.clone(), chosen, (2, 2, 3))
    expected = torch.log_softmax(logits.view(2, 2, 3), 2)
    torch.testing.assert_close(p, expected.exp().view(2, 6))
    torch.testing.assert_close(surprise, -expected.view(2, 6).gather(1, chosen))

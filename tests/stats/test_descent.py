import torch

from layerscope.stats.descent import Descent


def problem(systems, unknowns, seed):
    draw = torch.Generator().manual_seed(seed)
    curvature = torch.rand(systems, unknowns, generator=draw, dtype=torch.float64) * 50 + 0.5
    return curvature, torch.randn(systems, unknowns, generator=draw, dtype=torch.float64)


def quadratics(curvature, minimum):
    """Σ c (x − m)² / 2 for each row of curvatures and minima, with its gradient."""

    def at(points):
        gap = points - minimum
        return (curvature * gap.square()).sum(1) / 2, curvature * gap

    return at


def descend(descent, function, precondition, turns):
    for _ in range(turns):
        descent.take(*function(descent.trial))
        descent.aim(precondition)
    descent.take(*function(descent.trial))


def test_with_the_exact_hessian_a_quadratic_takes_one_step():
    curvature = torch.tensor([[1.0, 10.0, 100.0], [5.0, 0.1, 2.0]], dtype=torch.float64)
    minimum = torch.tensor([[1.0, -2.0, 3.0], [0.0, 4.0, -1.0]], dtype=torch.float64)
    descent = Descent(torch.zeros(2, 3, dtype=torch.float64), torch.float64)
    descend(descent, quadratics(curvature, minimum), lambda g: g / curvature, 1)
    torch.testing.assert_close(descent.point, minimum)


def test_without_it_the_pairs_make_up_for_it():
    curvature, minimum = problem(3, 8, seed=0)
    descent = Descent(torch.zeros(3, 8, dtype=torch.float64), torch.float64)
    descend(descent, quadratics(curvature, minimum), lambda g: g / 50, 60)
    torch.testing.assert_close(descent.point, minimum, atol=1e-6, rtol=0)


def test_a_step_that_goes_up_is_shortened_and_never_taken():
    curvature = torch.full((1, 1), 1.0, dtype=torch.float64)
    function = quadratics(curvature, torch.zeros(1, 1, dtype=torch.float64))
    descent = Descent(torch.ones(1, 1, dtype=torch.float64), torch.float64)
    values = []
    for _ in range(12):
        descent.take(*function(descent.trial))
        values.append(float(descent.value))
        descent.aim(lambda g: 30 * g)  # thirty times too far
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-6


def test_each_function_goes_its_own_way_when_others_leave():
    curvature = torch.tensor([[1.0, 4.0], [3.0, 2.0], [9.0, 1.0]], dtype=torch.float64)
    minimum = torch.tensor([[1.0, 1.0], [2.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    together = Descent(torch.zeros(3, 2, dtype=torch.float64), torch.float64)
    descend(together, quadratics(curvature, minimum), lambda g: g / 9, 2)
    kept = torch.tensor([True, False, True])
    together.keep(kept)
    alone = Descent(torch.zeros(2, 2, dtype=torch.float64), torch.float64)
    descend(alone, quadratics(curvature[kept], minimum[kept]), lambda g: g / 9, 2)
    torch.testing.assert_close(together.point, alone.point)
    torch.testing.assert_close(together.gradient, alone.gradient)


def test_a_preconditioner_that_asks_for_steps_too_long_is_scaled_down():
    draw = torch.Generator().manual_seed(0)
    curvature = torch.rand(4, 200, generator=draw, dtype=torch.float64) * 4 + 1
    minimum = torch.randn(4, 200, generator=draw, dtype=torch.float64)
    function = quadratics(curvature, minimum)
    ends = []
    for factor in (1 / 3, 1.0):  # the scaling makes up for the second
        descent = Descent(torch.zeros(4, 200, dtype=torch.float64), torch.float64)
        descend(descent, function, lambda g, factor=factor: factor * g, 12)
        ends.append(descent.value)
    assert (ends[1] < 10 * ends[0]).all()


def test_pairs_of_one_penalty_are_those_of_another():
    curvature = torch.tensor([[1.0, 10.0, 100.0]], dtype=torch.float64)
    more = torch.tensor([[3.0, 3.0, 0.0]], dtype=torch.float64)
    minimum = torch.ones(1, 3, dtype=torch.float64)
    weak = Descent(torch.zeros(1, 3, dtype=torch.float64), torch.float64)
    descend(weak, quadratics(curvature, minimum), lambda g: g / 50, 3)
    for pair in weak.pairs:
        bent = pair.bent(more)
        torch.testing.assert_close(bent.change, (curvature + more) * pair.step)
        torch.testing.assert_close(1 / bent.inverse, (bent.change * bent.step).sum(1))


def test_pairs_of_before_are_as_good_as_steps():
    curvature, minimum = problem(1, 3, seed=1)
    first = Descent(torch.zeros(1, 3, dtype=torch.float64), torch.float64)
    descend(first, quadratics(curvature, minimum), lambda g: g / 50, 6)
    ends = []
    for pairs in ((), first.pairs):
        descent = Descent(torch.zeros(1, 3, dtype=torch.float64), torch.float64, pairs)
        descend(descent, quadratics(curvature, minimum + 1), lambda g: g / 50, 3)
        ends.append(float(descent.value))
    assert ends[1] < ends[0] / 100

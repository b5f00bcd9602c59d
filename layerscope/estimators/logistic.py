"""The linear probe of classes: multinomial logistic regression on one layer's features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.classification import (
    ClassifiedRows,
    Classifier,
    FittedClassifier,
    Target,
    classify_blocks,
    read_targets,
)
from layerscope.estimators.layer import LayerRows, LoadedLayer
from layerscope.estimators.linear import LinearProbe
from layerscope.estimators.refits import Refits, training_blocks, validation_weights
from layerscope.estimators.streamed_layer import open_layer
from layerscope.stats import products
from layerscope.stats.moments import RunningMoments
from layerscope.stats.regularisation_path import GROUP, WarmStart, solve_path
from layerscope.stats.rows import Rows, StreamedRows, standardised
from layerscope.stats.softmax import PASSES, Labelling, Solution, Start, solve
from layerscope.stats.spectrum import Spectrum, spectrum
from layerscope.stats.standard_error import standard_errors
from layerscope.types import LayerView, Replicates, Task

End = Literal["low", "high"]
"""Of the grid: the weakest and the strongest penalty."""
Ended = Literal["grid", "worse", "settled"]
"""Why nothing beyond an end of the path was tried: the grid grows no further, or on the validation
rows the end was clearly worse than the best fit, or the last decade changed nothing."""

HIGH, LOW = 0, -5
"""Powers of ten between which λ is sought first."""
PER_DECADE = 2
ENDS: tuple[tuple[End, int, int], ...] = (("high", HIGH, 1), ("low", LOW, -1))
"""Of the grid: where they are at first, and which way they go."""
EXTENSIONS: Mapping[End, int] = {"high": 2, "low": 4}
"""Decades by which the grid may grow beyond an end that may still lead somewhere."""
CLEARLY = 2.0
"""Standard errors by which an end has to be worse than the best, for the grid to end there."""
GAP = 1e-5
"""Largest share of the objective that a fit may be from its least."""
LARGE = 1 << 26
"""More numbers are standardised in each pass, for a tenth of its cost, and not held twice."""
SMALL = 1 << 18
"""Features of so few numbers are computed with in float64: it costs next to nothing there."""


@dataclass(frozen=True, slots=True)
class _Training:
    """A layer's training rows as the solver wants them."""

    rows: Rows
    basis: Spectrum


@dataclass(frozen=True, slots=True)
class _Fit:
    """The classifier at one λ, what it makes of the validation rows, and how the solver ended."""

    probe: LinearProbe
    val: ClassifiedRows
    gap: float
    passes: int


@dataclass(slots=True)
class _Path:
    """The fits of one task, in order of falling λ."""

    target: Target
    groups: Tensor
    """(n_val,) of the validation rows."""
    fits: list[_Fit] = field(default_factory=list)
    unconverged: list[float] = field(default_factory=list)
    warm_start: WarmStart = field(default_factory=WarmStart)

    @property
    def best(self) -> int:
        """The place of the fit that validation prefers, of equal ones the strongest penalty."""
        metric = self.target.task.metric
        return min(range(len(self.fits)), key=lambda i: self.fits[i].val.rank(metric))

    @property
    def edge(self) -> str:
        """The end of the grid that won, or none."""
        return {0: "high", len(self.fits) - 1: "low"}.get(self.best, "none")

    def ended(self, end: End) -> Ended:
        """Return why the path ends at one of its ends; ``grid`` where only the grid's length does.

        Validation over λ need not have one peak, so that being worse twice ends nothing. What ends
        a path is an end that is worse than the best by more than their noise, which is paired and
        counts groups, or one on the way to which nothing changed any more.
        """
        last, before = (-1, -1 - PER_DECADE) if end == "low" else (0, PER_DECADE)
        if self._same(last, before):
            return "settled"
        worse = self._losses(last) - self._losses(self.best)
        return "worse" if float(worse.mean()) > CLEARLY * _error(worse, self.groups) else "grid"

    def _same(self, place: int, other: int) -> bool:
        one, another = self.fits[place].val, self.fits[other].val
        same = bool((one.predicted == another.predicted).all())
        return same and torch.equal(self._losses(place), self._losses(other))

    def _losses(self, place: int) -> Tensor:
        return self.fits[place].val.losses(self.target.task.metric)


@estimators.register("logistic")
class Logistic(Classifier):
    """Multinomial logistic regression with an L2 penalty chosen on the validation split.

    Three λ of a grid and all tasks are solved in the same passes over the training rows, to a
    relative gap of 1e-5 of the objective. λ is that of standardised features, so that it means the
    same at every layer, and all of the grid from 1 to 1e-5 is tried. It is chosen by the task's
    metric on the validation rows, ties by their negative log-likelihood; beyond an end that is not
    clearly worse than the best the grid grows by decades. ``test`` comes from disjoint rows.

    Args:
        seed: Kept in the table; the fit is deterministic.
    """

    name = "logistic"
    refits = "own"

    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        layer = open_layer(view)
        training = _training(layer)
        for path in _paths(layer, training, targets):
            best = path.fits[path.best]
            # The probe prepares rows itself, as it does those of any other image.
            stored = layer.stored_blocks("test")
            chosen = (best.probe.logits(rows)[:, None] for rows in stored)
            (test,) = classify_blocks(chosen, path.target, "test")
            settings, replicates = _settings(path), _refitted(view, layer, training, path)
            yield FittedClassifier(
                layer, path.target, best.val, test, settings, _note(path), replicates
            )


def fit_probe(view: LayerView, task: Task) -> LinearProbe:
    """Return the probe of one task at one cut, its λ chosen on the validation split.

    Args:
        view: The cut, with its splits.
        task: Of classes.

    Raises:
        EstimatorError: Features or targets on which no classifier is defined.
    """
    targets = read_targets(view, [task], Logistic.name)
    layer = open_layer(view)
    (path,) = _paths(layer, _training(layer), targets)
    return path.fits[path.best].probe


def _refitted(
    view: LayerView, layer: LayerRows, training: _Training, path: _Path
) -> tuple[Replicates, ...]:
    """Return the losses of fits to fewer training rows, and at λ that other rows would choose."""
    target, probe = path.target, path.fits[path.best].probe
    blocks = training_blocks(view, target.task)
    if blocks is None:
        return ()
    numbers = torch.from_numpy(blocks)
    weights = (numbers != torch.arange(int(numbers.max()) + 1)[:, None]).double()
    labelling = Labelling(target.places("train"), len(target.classes), weights)
    rotated = (probe.weights.T @ training.basis.vectors)[None, None]
    start = Start(
        rotated.expand(len(weights), -1, -1, -1),
        probe.intercept.expand(len(weights), 1, -1),
    )
    penalty = torch.tensor([probe.penalty], dtype=torch.float64)
    (found,) = solve(training.rows, training.basis, [labelling], penalty, gap=GAP, starts=[start])
    of_features, intercepts = found.weights(training.basis)[:, 0], found.intercept[:, 0]
    pairs = zip(of_features, intercepts, strict=True)
    without = [_test_losses(training, layer, target, *pair) for pair in pairs]
    others = _other_choices(view, path)
    of_test = {}
    for place in set(others):
        other = path.fits[place].probe
        of_test[place] = _test_losses(training, layer, target, other.weights.T, other.intercept)
    return Refits(without, [of_test[place] for place in others]).replicates()


def _test_losses(
    training: _Training, layer: LayerRows, target: Target, weights: Tensor, intercept: Tensor
) -> Tensor:
    """Return the (n_test,) losses of (c, d) weights."""
    blocks = _logits(training, layer.blocks("test"), weights[None], intercept[None])
    return classify_blocks(blocks, target, "test")[0].losses(target.task.metric)


def _other_choices(view: LayerView, path: _Path) -> list[int]:
    """Return the places of the fits that samples of the validation rows choose."""
    metric, weights = path.target.task.metric, validation_weights(view)
    rows = [(fit.val.losses(metric), fit.val.losses("nll")) for fit in path.fits]
    means = torch.stack([weights @ torch.stack(each, 1) for each in rows], 1)
    return [min(range(len(rank)), key=rank.__getitem__) for rank in means.tolist()]


def _paths(layer: LayerRows, training: _Training, targets: Sequence[Target]) -> list[_Path]:
    paths = [_Path(target, layer.groups_of_val) for target in targets]
    for penalties in torch.split(_grid(HIGH, LOW), GROUP):
        _extend(paths, layer, training, penalties)
    for end, start, step in ENDS:
        for turn in range(EXTENSIONS[end]):
            going_on = [path for path in paths if path.ended(end) == "grid"]
            first = start + turn * step
            _extend(going_on, layer, training, _grid(first, first + step)[1:])
    return paths


def _grid(start: int, end: int) -> Tensor:
    """Return λ from one power of ten to another, evenly spaced on a log scale."""
    return torch.logspace(start, end, abs(end - start) * PER_DECADE + 1, dtype=torch.float64)


def _training(layer: LayerRows) -> _Training:
    held = None
    if isinstance(layer, LoadedLayer) and layer.stored["train"].numel() <= LARGE:
        held = layer.rows("train")
    small = held is not None and held.numel() <= SMALL
    dtype = torch.float64 if small else torch.float32
    running: RunningMoments | None = None
    for block in layer.blocks("train"):
        running = running or RunningMoments(block.shape[1])
        running.update(block.to(dtype))
    assert running is not None, "a layer without training rows is refused when it is read"
    basis = spectrum(running.compute(), whole=True)
    if held is None:
        streamed = StreamedRows(lambda: layer.blocks("train"), basis.standardiser, dtype)
        return _Training(streamed, basis)
    return _Training(standardised(held, basis.standardiser, dtype), basis)


def _extend(
    paths: Sequence[_Path], layer: LayerRows, training: _Training, penalties: Tensor
) -> None:
    """Solve some paths at more penalties, and put the fits in their places."""
    if not paths:
        return
    descending = penalties.sort(descending=True).values
    labellings = [
        Labelling(path.target.places("train"), len(path.target.classes)) for path in paths
    ]
    # A warm start leads to weaker penalties; stronger ones are quick from zero.
    weakest = [path.fits[-1].probe.penalty for path in paths if path.fits]
    onward = all(penalty > descending[0] for penalty in weakest)
    warm_starts = [path.warm_start for path in paths] if onward else None
    solutions = solve_path(
        training.rows, training.basis, labellings, descending, gap=GAP, warm_starts=warm_starts
    )
    for path, solution in zip(paths, solutions, strict=True):
        _insert(path, layer, training, descending.tolist(), solution)


def _insert(
    path: _Path, layer: LayerRows, training: _Training, penalties: list[float], solution: Solution
) -> None:
    stronger = not path.fits or penalties[0] > path.fits[0].probe.penalty
    first = 0 if stronger else len(path.fits)
    weights, ends = solution.weights(training.basis)[0], solution.convergence
    intercept = solution.intercept[0]
    val = classify_blocks(
        _logits(training, layer.blocks("val"), weights, intercept), path.target, "val"
    )
    rule = training.basis.standardiser
    for i, penalty in enumerate(penalties):
        probe = LinearProbe(
            layer.preparation, rule, weights[i].T, intercept[i], path.target.classes, penalty
        )
        fit = _Fit(probe, val[i], float(ends.gap[0, i]), int(ends.passes[0, i]))
        path.fits.insert(first + i, fit)
        if not bool(ends.converged[0, i]):
            path.unconverged.append(penalty)


def _logits(
    training: _Training, blocks: Iterator[Tensor], weights: Tensor, intercept: Tensor
) -> Iterator[Tensor]:
    """Yield (m, l, c) logits of blocks of (m, d) rows under (l, c, d) weights."""
    columns = weights.flatten(0, 1).to(training.rows.dtype)
    offsets = intercept.flatten().to(columns)
    for block in blocks:
        rows = training.basis.standardiser(block).to(columns)
        yield products.logits(rows, columns, offsets).view(len(block), *intercept.shape)


def _error(values: Tensor, groups: Tensor) -> float:
    """Return the standard error of a mean over rows, infinite where they are a single group."""
    if len(torch.unique(groups)) == 1:
        return math.inf
    return float(standard_errors(values[:, None], groups)[0])


def _settings(path: _Path) -> dict[str, Any]:
    best = path.fits[path.best]
    return {
        "lambda": best.probe.penalty,
        "lambda_low": path.fits[-1].probe.penalty,
        "lambda_high": path.fits[0].probe.penalty,
        "edge": path.edge,
        "ended_low": path.ended("low"),
        "ended_high": path.ended("high"),
        "gap": best.gap,
        "passes": best.passes,
        "unconverged": path.unconverged,
    }


def _note(path: _Path) -> str:
    best = path.fits[path.best]
    penalty, gap = best.probe.penalty, best.gap
    if penalty not in path.unconverged:
        return ""
    return (
        f"The solver stopped for the chosen λ = {penalty:g} at an estimated gap of {gap:.1g} of "
        f"the objective, of at most {PASSES} passes."
    )

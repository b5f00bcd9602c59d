"""Softmax regression: many L2-regularised problems on the same rows, solved together.

The objective of a problem is F(W, b) = Σ_i w_i ℓ(W x_i + b, y_i) / Σ_i w_i + (λ/2) ‖W‖² with the
cross-entropy ℓ in nats, standardised features x and free intercepts: that of scikit-learn's
``LogisticRegression``, whose C is 1/(λ n). Of two classes scikit-learn penalises one vector of
weights, which is the difference of our two; our penalty is doubled there, so that objectives and
probabilities are equal.

The descent is L-BFGS in the coordinates of the Gram matrix's eigenvectors, begun from the inverse
of the diagonal h_c s_k + λ, where s_k is the k-th eigenvalue and h_c the mean of p_c (1 − p_c) over
the rows: the Hessian's, were probabilities and features independent. A vector that is added to the
weights of every class changes no probability, so that along it the Hessian is λ alone, which no
diagonal knows; since the solution has it zero, steps are kept free of it. Without that, the last
digits take two to ten times as many passes.

All problems share the products with the rows, which are nearly all of the cost: one pass over the
rows serves every λ, fold, seed and task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from layerscope.stats import products
from layerscope.stats.descent import Descent, Pair
from layerscope.stats.rows import Rows, rows_for
from layerscope.stats.spectrum import Spectrum

GAP = 1e-5
"""Wanted distance to the least objective, as a share of it."""
PASSES = 1000
"""Over the rows, after which a problem is given up."""
SAFETY = 3.0
"""By how much the estimated distance may be too small."""
TREND = 6
"""Passes over which the rate of convergence is taken."""
USUAL = 0.8
"""The rate of passes that have not been made yet."""
SLOWEST = 0.97
"""The largest rate that is believed: one of 1 is a step that was not accepted."""
LOOK = 4
"""Passes from one look at the means of p (1 − p) to the next."""
SAFE_LOGIT = 60.0
"""The exponential of this many nats, summed over the classes, is a number in float32."""
LEAST = 1e-3
"""The least h_c, as a share of their mean over the classes."""


@dataclass(frozen=True)
class Labelling:
    """Labels of the rows, and draws of rows that a classifier is wanted of."""

    labels: Tensor
    """(n,) int64 in [0, classes)."""
    classes: int
    weights: Tensor | None = None
    """(q, n) of the rows in q draws, not negative; None is one draw of all rows alike."""

    @cached_property
    def counts(self) -> Tensor:
        """(q, classes) float64: the weight of each class in each draw."""
        if self.weights is None:
            return torch.bincount(self.labels, minlength=self.classes).double()[None]
        found = self.weights.new_zeros(len(self.weights), self.classes, dtype=torch.float64)
        return found.index_add_(1, self.labels, self.weights.double())


@dataclass(frozen=True, slots=True)
class Convergence:
    """How each of q draws × l penalties ended."""

    objective: Tensor
    """(q, l) float64."""
    gap: Tensor
    """(q, l) float64, the estimated distance to the least objective, as a share of it."""
    passes: Tensor
    """(q, l) int64 passes over the rows."""
    converged: Tensor
    """(q, l) bool, whether the gap is as small as wanted."""


@dataclass(frozen=True, slots=True)
class Curvature:
    """What the way to the solution at one penalty told of the Hessian of each of q draws."""

    penalty: Tensor
    """(q,) float64, as the descent has it."""
    spread: Tensor
    """(q, classes) float64 means of p (1 − p)."""
    pairs: tuple[Pair, ...]
    """Of the last steps."""

    def at(self, penalty: Tensor, size: int) -> list[Pair]:
        """Return the pairs at other (q l,) penalties, l of each draw.

        The Hessian has λ on its diagonal, except for the intercepts, and so the pairs of one λ
        are known at every other as long as the probabilities are much the same.
        """
        of = torch.arange(len(penalty), device=penalty.device) // size
        if not self.pairs:
            return []
        classes, wide = self.spread.shape[1], self.pairs[0].step.shape[1]
        ridge = (penalty - self.penalty[of])[:, None, None].repeat(1, classes, wide // classes)
        ridge[..., -1] = 0
        return [pair.of(of).bent(ridge.flatten(1)) for pair in self.pairs]


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin, and what is known of the way from there."""

    weights: Tensor
    """(q, l, classes, r)"""
    intercept: Tensor
    """(q, l, classes)"""
    curvature: Curvature | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """The classifiers of one labelling, in the coordinates of the spectrum's eigenvectors."""

    rotated: Tensor
    """(q, l, classes, r) float64 weights; those of a class that a draw lacks are zero."""
    intercept: Tensor
    """(q, l, classes) float64; minus infinity for a class that a draw lacks."""
    convergence: Convergence
    curvature: Curvature
    """At the last penalty."""

    def weights(self, basis: Spectrum) -> Tensor:
        """Return (q, l, classes, d) float64 weights on standardised features."""
        return self.rotated @ basis.vectors.T


def solve(
    rows: Rows,
    basis: Spectrum,
    labellings: Sequence[Labelling],
    penalties: Tensor,
    *,
    gap: float = GAP,
    starts: Sequence[Start | None] | None = None,
) -> list[Solution]:
    """Solve all draws of all labellings at all penalties in the same passes over the rows.

    Args:
        rows: Standardised training rows; their type is that of the products.
        basis: The whole spectrum of their Gram matrix.
        labellings: What is asked of them.
        penalties: (l,) λ > 0.
        gap: Wanted distance to the least objective, as a share of it.
        starts: Of each labelling, where to begin; at zero weights by default.

    Returns:
        One solution for each labelling, its convergence beside it.
    """
    begun: Sequence[Start | None] = starts or [None] * len(labellings)
    batches = [
        ProblemBatch(basis, labelling, penalties, gap, start, rows.dtype)
        for labelling, start in zip(labellings, begun, strict=True)
    ]
    for turn in range(PASSES):
        active = [batch for batch in batches if batch.active]
        if not active:
            break
        _pass(rows, basis, active, with_spread=turn % LOOK == 1)
    return [batch.solution() for batch in batches]


def _pass(
    rows: Rows, basis: Spectrum, batches: Sequence[ProblemBatch], *, with_spread: bool
) -> None:
    """Evaluate all trial points: one product with each block of rows, and one with its transpose.

    Weights are turned to the features' coordinates, and not the rows to the eigenvectors', because
    there are fewer of them.
    """
    vectors = basis.vectors.to(rows.dtype)
    for batch in batches:
        batch.prepare(vectors)
    for place, block in rows.blocks(rows_for(max(batch.width for batch in batches))):
        for batch in batches:
            batch.accumulate(place, block, with_spread)
    for batch in batches:
        batch.move(vectors, with_spread)


class ProblemBatch:
    """The problems of one labelling, of which those that are solved leave."""

    def __init__(
        self,
        basis: Spectrum,
        labelling: Labelling,
        penalties: Tensor,
        gap: float,
        start: Start | None,
        dtype: torch.dtype,
    ) -> None:
        counts, self._classes, size = labelling.counts, labelling.classes, len(penalties)
        self._shape = len(counts), size, self._classes, basis.rank + 1
        self._labels, self._wanted, self._values = labelling.labels, gap, basis.values
        self._weights = None if labelling.weights is None else labelling.weights.T.to(dtype)
        place = torch.arange(len(counts) * size, device=counts.device)
        self._firsts = place * self._classes
        self._numbers, self._draws = place, place // size
        self._sizes = counts.sum(1)[self._draws]
        prior = counts[self._draws] / self._sizes[:, None]
        self._present = (prior > 0)[..., None]
        # See the module's docstring: scikit-learn's penalty of two classes.
        factor = 2.0 if self._classes == 2 else 1.0
        self._penalty = penalties.to(counts).repeat(len(counts)) * factor
        known = start.curvature if start else None
        self._spread = prior * (1 - prior) if known is None else known.spread[self._draws]
        pairs = known.at(self._penalty, size) if known else []
        self._descent = Descent(self._first_point(start, prior), dtype, pairs)
        self._known: list[tuple[Tensor, Curvature]] = []
        self._points = torch.zeros_like(self._descent.point)
        self._left = torch.zeros(3, len(place), dtype=torch.float64, device=counts.device)
        self._promised: list[Tensor] = []
        self._converged = torch.zeros_like(place, dtype=torch.bool)
        self._turn = 0
        self._clear()

    @property
    def active(self) -> bool:
        return len(self._numbers) > 0

    @property
    def width(self) -> int:
        """How many columns of the product are this labelling's."""
        return len(self._numbers) * self._classes

    def prepare(self, vectors: Tensor) -> None:
        """Turn the trial weights to the features' coordinates."""
        trial = self._trial().to(vectors)
        self._turned = trial[..., :-1].flatten(0, 1) @ vectors.T
        self._offsets = trial[..., -1].flatten()
        self._gradient = torch.zeros(self._turned.shape, dtype=torch.float64, device=vectors.device)

    def accumulate(self, place: slice, block: Tensor, with_spread: bool) -> None:
        """Take in a block of (m, d) rows: its loss, and what it adds to the gradient."""
        logits = products.logits(block, self._turned, self._offsets)
        size = len(logits), len(self._numbers), self._classes
        chosen = self._labels[place][:, None] + self._firsts[: size[1]]
        share = None if self._weights is None else self._weights[place][:, self._draws]
        p, nll = _softmax(logits, chosen, size)
        if share is not None:
            # A row without weight may be of a class that the draw lacks, at an infinite nll.
            nll = torch.where(share > 0, nll * share, 0.0)
        self._loss += nll.sum(0, dtype=torch.float64)
        if with_spread:
            spread = p - p.square()
            if share is not None:
                spread.view(size).mul_(share[..., None])
            self._spread_sum += spread.sum(0).view(size[1:])
        p.scatter_add_(1, chosen, p.new_full((), -1.0).expand(chosen.shape))
        if share is not None:
            p.view(size).mul_(share[..., None])
        self._total += p.sum(0).view(size[1:])
        self._gradient += products.correlation(block, p)

    def move(self, vectors: Tensor, with_spread: bool) -> None:
        """Turn the gradient to the eigenvectors' coordinates, and set the next trial points."""
        weights = self._trial()[..., :-1]
        gradient = self._gradient.to(vectors) @ vectors
        value = self._loss / self._sizes + self._penalty / 2 * weights.square().sum((1, 2))
        of_loss = gradient.double().reshape(weights.shape) / self._sizes[:, None, None]
        of_weights = of_loss + self._penalty[:, None, None] * weights
        of_offsets = self._total / self._sizes[:, None]
        if with_spread:
            self._spread = self._spread_sum / self._sizes[:, None]
        gradient = torch.cat((of_weights, of_offsets[..., None]), 2).flatten(1)
        self._descent.take(value, gradient)
        self._descent.aim(self._precondition)
        self._turn += 1
        self._dismiss()
        self._clear()

    def solution(self) -> Solution:
        """Return what was found; of problems that are still on their way, where they are."""
        self._record(torch.ones_like(self._numbers, dtype=torch.bool))
        points = self._points.view(self._shape)
        objective, gap, passes = self._left.view(3, *self._shape[:2])
        ends = Convergence(objective, gap, passes.long(), self._converged.view(self._shape[:2]))
        return Solution(points[..., :-1], points[..., -1], ends, self._curvature())

    def _first_point(self, start: Start | None, prior: Tensor) -> Tensor:
        point = prior.new_zeros(len(prior), *self._shape[2:])
        point[..., -1] = prior.log()
        if start is not None:
            point[..., :-1] = start.weights.flatten(0, 1)
            offsets = start.intercept.flatten(0, 1)
            point[..., -1] = torch.where(prior > 0, offsets, -torch.inf)
        return point.flatten(1)

    def _trial(self) -> Tensor:
        return self._descent.trial.view(-1, *self._shape[2:])

    def _clear(self) -> None:
        shape = len(self._numbers), self._classes
        self._loss = self._values.new_zeros(shape[0])
        self._total, self._spread_sum = self._values.new_zeros(shape), self._values.new_zeros(shape)

    def _precondition(self, gradient: Tensor) -> Tensor:
        """Return (p, k) approximate Newton steps that add nothing common to all classes."""
        h = self._spread
        h = torch.maximum(h, (LEAST * h.mean(1, keepdim=True)).clamp(min=1e-12))[..., None]
        steps = self._without_common(gradient.view(-1, *self._shape[2:]))
        steps[..., :-1] /= h * self._values + self._penalty[:, None, None]
        steps[..., -1:] /= h
        return self._without_common(steps).flatten(1)

    def _without_common(self, steps: Tensor) -> Tensor:
        """Return (p, classes, k) steps whose sum over the classes that are there is zero."""
        there = self._present.to(steps)
        common = (steps * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
        free: Tensor = (steps - common) * there
        return free

    def _estimate(self) -> Tensor:
        """Return (p,) estimated shares of the objective that are left to gain.

        A Newton step with the Hessian as remembered gains as much as the next pass does; passes
        that gain less and less at a constant rate add up to the first one's over 1 − rate.
        """
        first, last = self._promised[0], self._promised[-1]
        tiny, passed = torch.finfo(last.dtype).tiny, len(self._promised) - 1
        logs = last.clamp(min=tiny).log() - first.clamp(min=tiny).log()
        rate = ((logs + (TREND - passed) * math.log(USUAL)) / TREND).exp()
        left = last / (1 - rate.clamp(max=SLOWEST))
        shares: Tensor = left / self._descent.value.clamp(min=tiny)
        return shares

    def _dismiss(self) -> None:
        self._promised = [*self._promised[-TREND:], self._descent.promised.clamp(min=0)]
        gone = (SAFETY * self._estimate() <= self._wanted) | self._descent.stuck
        if not bool(gone.any()):
            return
        self._record(gone)
        kept = ~gone
        self._descent.keep(kept)
        self._promised = [it[kept] for it in self._promised]
        self._numbers, self._draws = self._numbers[kept], self._draws[kept]
        self._sizes, self._penalty = self._sizes[kept], self._penalty[kept]
        self._spread, self._present = self._spread[kept], self._present[kept]

    def _record(self, which: Tensor) -> None:
        places, left = self._numbers[which], self._estimate()[which]
        self._points[places] = self._descent.point[which]
        turns = torch.full_like(left, self._turn)
        self._left[:, places] = torch.stack((self._descent.value[which], left, turns))
        self._converged[places] = SAFETY * left <= self._wanted
        last = which & (self._numbers % self._shape[1] == self._shape[1] - 1)
        pairs = tuple(pair.of(last) for pair in self._descent.pairs)
        known = Curvature(self._penalty[last], self._spread[last], pairs)
        self._known.append((self._draws[last], known))

    def _curvature(self) -> Curvature:
        """Return that of all draws, in their order; those that left early have fewer pairs."""
        order = torch.cat([draws for draws, _ in self._known]).argsort()
        parts = [known for _, known in self._known]
        depth = max(len(it.pairs) for it in parts)
        padded = [_padded(it, depth, self._points) for it in parts]
        pairs = [
            Pair(*map(torch.cat, zip(*pair, strict=True))) for pair in zip(*padded, strict=True)
        ]
        penalty = torch.cat([it.penalty for it in parts])[order]
        spread = torch.cat([it.spread for it in parts])[order]
        return Curvature(penalty, spread, tuple(pair.of(order) for pair in pairs))


def _padded(known: Curvature, depth: int, like: Tensor) -> list[Pair]:
    """Return as many pairs, of which those that are missing count for nothing."""
    draws = len(known.penalty)
    nothing = known.pairs[-1].step if known.pairs else like[:draws]
    zeros, none = torch.zeros_like(nothing), torch.zeros_like(known.penalty)
    return [Pair(zeros, zeros, none, none)] * (depth - len(known.pairs)) + list(known.pairs)


def _softmax(logits: Tensor, chosen: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return the (m, p c) probabilities of p problems, and (m, p) surprises of the true classes.

    Normalisers are sums by class, which for few classes are quicker as a product with zeros and
    ones. Logits that no exponential overflows need not be shifted first, and none underflows: the
    largest of a row is at least their mean, which steps without a common vector leave at that of
    the classes' log shares.

    Args:
        logits: (m, p c), which are overwritten.
        chosen: (m, p) columns of the true classes.
        size: m, p and c.
    """
    if not float(logits.amax()) < SAFE_LOGIT:
        logits.view(size).sub_(logits.view(size).amax(2, keepdim=True))
    of_truth = logits.gather(1, chosen)
    e = logits.exp_()
    if size[1] == 1:
        sums = e.sum(1, keepdim=True)
        e /= sums
        return e, sums.log() - of_truth
    which = torch.eye(size[1], dtype=e.dtype, device=e.device).repeat_interleave(size[2], 0)
    sums = e @ which
    e *= sums.reciprocal() @ which.T
    return e, sums.log() - of_truth

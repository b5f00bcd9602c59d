"""How much another training sample would move mean losses, and those of several layers together.

Test rows tell how sure a mean loss is for the probe at hand. Another training sample would give
another probe. Here that part of the variance is estimated from probes that were fitted to other
training rows: without each of K blocks of groups (the delete-a-group jackknife), on K folds, or on
several draws. The same blocks are left out at every layer, so that what layers share in their luck
is known and cancels in their difference.

With L_k the mean loss of the k-th probe on the test rows, the variance of the jackknife is
(K − 1)/K Σ (L_k − L̄)² (Shao and Tu 1995, "The Jackknife and Bootstrap", chapter 2). On average it
is not too small (Efron and Stein 1981, "The jackknife estimate of variance"). Of a loss that is
quadratic in the fitted weights it is twice the variance for many small blocks, and more for few.

A probe's λ is chosen on validation rows, and others would choose another: the losses of the fits
that resampled validation rows choose have a variance of their own, which is added.

L_k − L̄ is itself a mean over a sample of test rows. What that sample adds to the sum is known,
since it is a variance over independent groups of rows, and is subtracted; without that, a few test
rows that change sides would pass for noise of training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.stats.standard_error import number_groups
from layerscope.stats.symmetric import positive_part, square_root
from layerscope.types import Replicates

Rows = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class TrainingNoise:
    """The covariance of k mean losses over training samples."""

    covariance: Tensor
    """(k, k) float64, positive semi-definite."""
    raw: Tensor
    """(k, k) the same before the share of the test rows was subtracted: how sure it is."""
    degrees: float
    """Degrees of freedom of ``raw``; infinite where it is assumed rather than measured."""

    @classmethod
    def assumed(cls, deviations: Tensor) -> TrainingNoise:
        """Return independent noise of (k,) standard deviations that are taken for granted."""
        covariance = deviations.double().square().diag()
        return cls(covariance, covariance, math.inf)

    def of(self, weights: Tensor) -> TrainingNoise:
        """Return the noise of (k, c) linear combinations."""
        covariance, raw = (weights.T @ it @ weights for it in (self.covariance, self.raw))
        return TrainingNoise(covariance, raw, self.degrees)

    def draws(self, count: int, seed: int) -> Tensor:
        """Return (count, k) normal draws of this covariance about zero."""
        generator = torch.Generator().manual_seed(seed)
        size = count, len(self.covariance)
        normal = torch.randn(size, generator=generator, dtype=torch.float64)
        return normal @ square_root(self.covariance)


def jackknife(
    losses: Rows, kind: Literal["refits", "folds"] = "refits", share: float = 1.0
) -> Replicates:
    """Return replicates of losses of probes that each lack one of m blocks of groups.

    Args:
        losses: (m, n), a probe after the other.
        kind: What was fitted.
        share: Of a block's weight that a probe lacks. Less than all keeps the probe near that of
            all rows, where a loss that is quadratic in the weights is more nearly linear.
    """
    count = len(losses)
    factor = ((count - share) / share) ** 2 / (count * (count - 1))
    return Replicates(kind, losses, factor, count - 1)


def spread(losses: Rows, share: float) -> Replicates:
    """Return replicates of (m, n) losses of probes whose *mean* is reported.

    Args:
        losses: Of m probes on as many draws, each of which takes a share of the same rows.
        share: Of the rows that a draw takes, below 1. The spread s² over draws from one pool lacks
            what all of them share, the pool: of their mean the variance is s²/m + s² share/(1 −
            share), of which the first part sinks with their number and the second does not.
    """
    count = len(losses)
    factor = (1 / count + share / (1 - share)) / (count - 1)
    return Replicates("draws", losses, factor, count - 1)


def choices(losses: Rows) -> Replicates:
    """Return replicates of (m, n) losses of the fits that m validation samples choose."""
    count = len(losses)
    return Replicates("choices", losses, 1 / (count - 1), count - 1)


def averaged(parts: Sequence[Replicates]) -> Replicates:
    """Return the replicates of a mean over several fits, each with replicates of its own.

    The same validation samples chose all of them, while each draw has blocks of its own.
    """
    first = parts[0]
    if first.kind == "choices":
        return replace(first, losses=np.mean([part.losses for part in parts], axis=0))
    centred = [part.losses - part.losses.mean(0) for part in parts]
    factor, degrees = first.factor / len(parts) ** 2, sum(part.degrees for part in parts)
    return Replicates(first.kind, np.concatenate(centred), factor, degrees)


def training_noise(layers: Sequence[Sequence[Replicates]], groups: Tensor) -> TrainingNoise:
    """Return the covariance over training samples of several layers' mean losses.

    Args:
        layers: Of k layers the replicates of each source of noise, the same sources in one order
            and over the same blocks, draws or folds.
        groups: (n,) integers that name each test row's group.

    Raises:
        EstimatorError: Fewer than two groups.
    """
    sources = [_one_source(source, groups) for source in zip(*layers, strict=True)]
    corrected, raws = (torch.stack(it) for it in zip(*(it[:2] for it in sources), strict=True))
    sizes = raws.diagonal(dim1=1, dim2=2).sum(1)
    freedom = torch.tensor([degrees for *_, degrees in sources], dtype=torch.float64)
    unsure = float((sizes.square() / freedom).sum())
    degrees = float(sizes.sum() ** 2) / unsure if unsure > 0 else float(freedom.sum())
    return TrainingNoise(positive_part(corrected.sum(0)), raws.sum(0), degrees)


def _one_source(layers: Sequence[Replicates], groups: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the covariance less what the sample of test rows adds, the whole, and its freedom."""
    # Layers may lack another share of the same blocks, and so have factors of their own.
    offsets = torch.stack(
        [
            torch.tensor(it.losses - it.losses.mean(0)).double() * math.sqrt(it.factor)
            for it in layers
        ],
        2,
    )
    means = offsets.mean(1)
    raw = means.T @ means
    place, count = number_groups(groups)
    by_rows = torch.zeros_like(raw)
    for offset, mean in zip(offsets, means, strict=True):
        sums = offset.new_zeros(count, offset.shape[1])
        sums.index_add_(0, place, offset - mean)
        by_rows += sums.T @ sums * (count / (count - 1) / len(offset) ** 2)
    return raw - by_rows, raw, layers[0].degrees


def mean_of_independent(parts: Sequence[TrainingNoise]) -> TrainingNoise | None:
    """Return the noise of the mean of several statistics that do not share theirs."""
    if not parts:
        return None
    square = len(parts) ** 2
    covariance = torch.stack([it.covariance for it in parts]).sum(0) / square
    raw = torch.stack([it.raw for it in parts]).sum(0) / square
    return TrainingNoise(covariance, raw, min(it.degrees for it in parts))

"""The gain of the best cut over a constant answer: whether any layer reads the task at all.

A constant answer is made from the training targets alone, so that it has no training noise worth
counting and no part in the choice of the cut. The best cut was chosen on the validation rows; on
the test rows its gain is paired with the constant's loss of the same rows, in the same resamples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from layerscope.stats.bootstrap import Resampled, resample


def gain_over_constant(
    drawn: Resampled,
    best: int,
    constant: npt.NDArray[np.float64],
    groups: npt.NDArray[np.str_],
    seed: int,
) -> Resampled:
    """Return the constant's mean test loss minus that of the best cut, by resample.

    Args:
        drawn: Mean test losses of the cuts.
        best: Place of the best cut.
        constant: (n_test,) losses of the constant answer.
        groups: (n_test,) group of each row.
        seed: Of the resamples of ``drawn``.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    alone = resample(
        torch.tensor(constant)[:, None],
        torch.tensor(numbers.ravel()),
        resamples=len(drawn.draws),
        seed=seed,
    )
    chosen = torch.zeros(len(drawn.estimate), 1, dtype=torch.float64)
    chosen[best] = -1
    return Resampled(
        alone.estimate - drawn.estimate[best, None],
        alone.draws - drawn.draws[:, best, None],
        drawn.groups,
        None if drawn.training is None else drawn.training.of(chosen),
    )

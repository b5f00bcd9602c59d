"""Wrong labels: a stated share of the training targets, replaced once before the training.

The wrong ones stay the same in every epoch, so a network can learn them by heart, which is what
over-fitting is studied on (Zhang et al. 2017, Understanding deep learning requires rethinking
generalization).
"""

from __future__ import annotations

import torch
from torch import Tensor


def corrupt_targets(targets: Tensor, share: float, seed: int, classes: int = 0) -> Tensor:
    """Return targets of which a share is wrong.

    A class becomes one of the others, each as likely; latents become those of another image among
    the chosen, and each of those is used once.

    Args:
        targets: (n,) int64 classes or (n, k) latents.
        share: Of the rows, in [0, 1]; the nearest whole number of rows is chosen.
        seed: Of the choice.
        classes: How many there are; 0 for latents.

    Examples:
        >>> wrong = corrupt_targets(torch.zeros(10, dtype=torch.int64), 0.4, seed=0, classes=3)
        >>> int((wrong != 0).sum())
        4
    """
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(targets), generator=draw)[: round(share * len(targets))]
    changed = targets.clone()
    if classes:
        shift = torch.randint(1, classes, (len(chosen),), generator=draw)
        changed[chosen] = (targets[chosen] + shift) % classes
    else:
        changed[chosen] = targets[chosen.roll(1)]
    return changed

"""Positive semi-definite parts and roots of symmetric matrices, such as covariances."""

from __future__ import annotations

import torch
from torch import Tensor


def positive_part(matrices: Tensor) -> Tensor:
    """Return the nearest positive semi-definite matrices of (..., k, k) symmetric ones."""
    if matrices.shape[-1] == 1:
        return matrices.clamp(min=0)
    values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
    nearest: Tensor = (vectors * values.clamp(min=0)[..., None, :]) @ vectors.mT
    return nearest


def square_root(matrix: Tensor) -> Tensor:
    """Return the symmetric root of a (k, k) positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    return root

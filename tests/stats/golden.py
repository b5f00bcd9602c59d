"""Rows to measure: drawn from a seed, or made without chance and known to ten digits."""

from __future__ import annotations

import torch


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fixture() -> tuple[torch.Tensor, torch.Tensor]:
    """(48, 12) float64 rows of four classes, and (48,) their labels."""
    i = torch.arange(1, 49, dtype=torch.float64)[:, None]
    j = torch.arange(1, 13, dtype=torch.float64)
    labels = torch.arange(48) % 4
    rows = torch.sin(i * j * 0.37) + 0.3 * torch.cos(i * 0.11 * j**2)
    return rows + 1.5 * torch.sin((labels[:, None] + 1) * j), labels

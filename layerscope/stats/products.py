"""Products of many rows with few columns, the cost of every linear probe.

In float32 on a processor they are written as 1 × 1 convolutions, which are the same sums of the
same numbers: PyTorch hands convolutions to oneDNN, and products of matrices to MKL, whose kernels
for narrow matrices are several times slower on some processors (docs/benchmarks.md). Of products
with the transpose of the rows that holds with AVX-512 alone: without it oneDNN's take three times
as long as MKL's, which are the quickest where each thread sums over rows of its own. oneDNN keeps
float32 unless ``torch.backends.mkldnn.conv.fp32_precision`` was told otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

TRANSPOSES = torch.backends.cpu.get_cpu_capability() == "AVX512"
"""Whether oneDNN is the quicker one with the transpose of the rows as well."""
PART = 1024
"""Rows that are summed over at a time."""
FEW = 64
"""Columns of a product with the transpose that is worth dividing."""


def logits(rows: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Return (m, c) X Wᵀ + b.

    Args:
        rows: (m, d) contiguous X.
        weights: (c, d) W.
        offsets: (c,) b.
    """
    if not _convolves(rows):
        return torch.addmm(offsets, rows, weights.T)
    kernel = weights[:, :, None, None]
    found = torch.nn.functional.conv2d(_picture(rows), kernel, offsets)
    return found[0, :, :, 0].T.contiguous()


def correlation(rows: Tensor, residuals: Tensor) -> Tensor:
    """Return (c, d) RᵀX.

    Args:
        rows: (m, d) contiguous X.
        residuals: (m, c) contiguous R.
    """
    if not _convolves(rows):
        return residuals.T @ rows
    if not TRANSPOSES:
        return _by_parts(rows, residuals)
    size = residuals.shape[1], rows.shape[1], 1, 1
    found: Tensor = conv2d_weight(_picture(rows), size, _picture(residuals))  # type: ignore[no-untyped-call]
    return found[:, :, 0, 0]


def _by_parts(rows: Tensor, residuals: Tensor) -> Tensor:
    """Return RᵀX as a sum over parts of the rows, of which each thread takes its own."""
    parts = len(rows) // PART
    if parts < 2 or residuals.shape[1] > FEW:
        return residuals.T @ rows
    size = len(rows) // parts
    whole = parts * size
    first = torch.bmm(
        residuals[:whole].view(parts, size, -1).mT, rows[:whole].view(parts, size, -1)
    )
    return first.sum(0) + residuals[whole:].T @ rows[whole:]


def _convolves(rows: Tensor) -> bool:
    return (
        rows.dtype == torch.float32
        and rows.device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def _picture(rows: Tensor) -> Tensor:
    """Return (m, d) rows as a picture of m × 1 pixels with d channels, of the same memory."""
    m, d = rows.shape
    return rows.as_strided((1, d, m, 1), (m * d, 1, d, d))

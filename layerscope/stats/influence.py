"""Standard errors of functions of eigenvalues, from what each row does to every eigenvalue.

A row that gets a little more weight than the others moves the eigenvalue λ_k of a mean of x xᵀ by
(v_kᵀx)² − λ_k times that weight, to first order. A smooth function of the eigenvalues moves by its
gradient times that; the mean of these influences is zero and their standard error over whole groups
is that of the function: the infinitesimal jackknife (Jaeckel 1972; Efron 1982, "The Jackknife, the
Bootstrap and Other Resampling Plans", chapter 6). Of the covariance x is the row less the mean,
whose own movement counts only to second order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from layerscope.stats.eigenvalues import Eigenvalues
from layerscope.stats.standard_error import standard_errors


def errors_of(
    functions: Callable[[Eigenvalues], Tensor],
    spectrum: Eigenvalues,
    rows: Iterable[Tensor],
    mean: Tensor,
    groups: Tensor,
) -> Tensor:
    """Return the (m,) standard errors of functions of the eigenvalues of a layer.

    Args:
        functions: Returns (m,) values of eigenvalues, differentiably.
        spectrum: With eigenvectors.
        rows: The (n, d) rows in blocks.
        mean: (d,) that is taken from rows first: zeros for the second moment about zero.
        groups: (n,) int64 group of each row.

    Raises:
        ValueError: The spectrum has no eigenvectors.
        EstimatorError: Fewer than two groups.
    """
    if spectrum.vectors is None:
        raise ValueError("Ask for the eigenvectors.")
    values = spectrum.values.detach().requires_grad_()
    outputs = functions(replace(spectrum, values=values))
    gradients = torch.stack([
        torch.autograd.grad(output, values, retain_graph=True)[0] for output in outputs
    ])  # fmt: skip
    turned = spectrum.vectors.float()
    # Of the mean of influences, which is zero, only the digits that its rounding leaves are lost.
    influences = [
        ((block.float() - mean.float()) @ turned).square().double() @ gradients.T for block in rows
    ]
    return standard_errors(torch.cat(influences), groups)

"""Standard errors of functions of eigenvalues, from what each row does to every eigenvalue.

A row that gets a little more weight than the others moves the eigenvalue λ_k of a mean of x xᵀ by
(v_kᵀx)² − λ_k times that weight, to first order. A smooth function of the eigenvalues moves by its
gradient times that; the mean of these influences is zero and their standard error over whole groups
is that of the function: the infinitesimal jackknife (Jaeckel 1972; Efron 1982, "The Jackknife, the
Bootstrap and Other Resampling Plans", chapter 6). Of the covariance x is the row less the mean,
whose own movement counts only to second order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerscope.stats.eigenvalues import Eigenvalues
from layerscope.stats.moments import BLOCK
from layerscope.stats.standard_error import standard_errors


@dataclass(frozen=True, slots=True)
class Influence:
    """How strongly each row leans on each eigenvector; serves any function of the eigenvalues."""

    spectrum: Eigenvalues
    squares: Tensor
    """(n, d) float32, (v_kᵀx)²."""
    groups: Tensor
    """(n,) int64 group of each row."""

    @classmethod
    def of(cls, spectrum: Eigenvalues, rows: Tensor, mean: Tensor, groups: Tensor) -> Influence:
        """Turn the rows into the eigenvectors' coordinates.

        Args:
            spectrum: With eigenvectors.
            rows: (n, d) as they are.
            mean: (d,) that is taken from rows first: zeros for the second moment about zero.
            groups: (n,) int64 group of each row.

        Raises:
            ValueError: The spectrum has no eigenvectors.
        """
        if spectrum.vectors is None:
            raise ValueError("Ask for the eigenvectors.")
        turn, shift = spectrum.vectors.float(), mean.float()
        squares = torch.empty(rows.shape, dtype=torch.float32)
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            squares[part] = ((rows[part].float() - shift) @ turn).square_()
        return cls(spectrum, squares, groups)

    def errors(self, functions: Callable[[Eigenvalues], Tensor]) -> Tensor:
        """Return the (m,) standard errors of functions of the eigenvalues.

        Args:
            functions: Returns (m,) values, differentiably.

        Raises:
            EstimatorError: Fewer than two groups.
        """
        values = self.spectrum.values.detach().requires_grad_()
        outputs = functions(replace(self.spectrum, values=values))
        gradients = torch.stack([
            torch.autograd.grad(output, values, retain_graph=True)[0] for output in outputs
        ])  # fmt: skip
        blocks = torch.split(self.squares, BLOCK)
        influences = torch.cat([block.double() @ gradients.T for block in blocks])
        return standard_errors(influences, self.groups)

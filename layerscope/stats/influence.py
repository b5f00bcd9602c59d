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
    """(n, d) float32, (v_kᵀx)² over the largest eigenvalue: at any scale of the features."""
    groups: Tensor
    """(n,) int64 group of each row."""

    @classmethod
    def of(
        cls,
        spectrum: Eigenvalues,
        rows: Tensor,
        mean: Tensor,
        groups: Tensor,
        *,
        about_zero: bool = False,
    ) -> Influence:
        """Turn the rows into the eigenvectors' coordinates.

        Args:
            spectrum: With eigenvectors, and an eigenvalue that is not 0.
            rows: (n, d) as they are.
            mean: (d,) float64 of the rows.
            groups: (n,) int64 group of each row.
            about_zero: Whether the spectrum is that of the second moment. The mean is turned by
                itself then, because products of float32 with a large offset have no digits left.

        Raises:
            ValueError: The spectrum has no eigenvectors.
        """
        if spectrum.vectors is None:
            raise ValueError("Ask for the eigenvectors.")
        unit = spectrum.values[:1].sqrt()
        turn, beside = spectrum.vectors.float(), ((mean / unit) @ spectrum.vectors).float()
        squares = torch.empty(rows.shape, dtype=torch.float32)
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            turned = ((rows[part].double() - mean) / unit).float() @ turn
            squares[part] = (turned + beside if about_zero else turned).square_()
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
        gradients = gradients * self.spectrum.values[0]
        blocks = torch.split(self.squares, BLOCK)
        influences = torch.cat([block.double() @ gradients.T for block in blocks])
        return standard_errors(influences, self.groups)

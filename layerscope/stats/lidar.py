"""LiDAR: how many directions tell images apart beyond what their augmentations change.

Thilak et al. (2024), "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL
Architectures", section 3: linear discriminant analysis with every image as a class and its views as
the class's rows. The effective rank of Σ = Σ_w^{−½} Σ_b Σ_w^{−½} counts the directions; δ keeps
Σ_w invertible and ε the logarithm finite. With Σ_w = LLᵀ the eigenvalues of Σ are those of
L⁻¹ Σ_b L⁻ᵀ, and with fewer images than features those of the images' side.
"""

from __future__ import annotations

import torch

from layerscope.errors import EstimatorError
from layerscope.stats.class_moments import ClassMoments

DELTA = 1e-4
"""Added to the diagonal of Σ_w."""
EPSILON = 1e-8
"""Added to every eigenvalue of Σ."""


def lidar(moments: ClassMoments, delta: float = DELTA, epsilon: float = EPSILON) -> float:
    """Return LiDAR: exp(−Σ p log p) with p = (λ + ε)/Σ(λ + ε) over all d eigenvalues λ of Σ.

    Other code adds ε to λ/Σλ, which changes the sixth digit.

    Σ_b is divided by the number of images less 1, Σ_w by that of rows less that of images: with q
    views of each of n images, n(q − 1). Images count alike however many views they have.

    Args:
        moments: Of the (n, d) rows by image; scatters of single images are not needed.
        delta: δ, in the features' unit squared.
        epsilon: ε.

    Raises:
        EstimatorError: Fewer than two images, no image with two views, or images that are all
            alike.
    """
    seen = moments.counts > 0
    means, rows = moments.means[seen], int(moments.counts.sum())
    images, width = means.shape
    if images < 2 or rows <= images:
        raise EstimatorError(
            f"LiDAR needs at least 2 images with several views, and {rows} rows show {images}.",
            hint="Extract the features with --views 2 or more.",
        )
    identity = torch.eye(width, dtype=torch.float64)
    factor = torch.linalg.cholesky(moments.within / (rows - images) + delta * identity)
    centred = (means - means.mean(0)) / (images - 1) ** 0.5
    whitened = torch.linalg.solve_triangular(factor, centred.T, upper=False)
    side = whitened.T @ whitened if images < width else whitened @ whitened.T
    values = torch.linalg.eigvalsh(side).clamp(min=0)
    if not float(values.sum()) > 0:
        raise EstimatorError(
            f"The {images} images have the same features, so that LiDAR is not defined.",
            hint="The layer is dead; leave the cut out.",
        )
    raised = torch.full((width,), epsilon, dtype=torch.float64)
    raised[: len(values)] += values
    shares = raised / raised.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))

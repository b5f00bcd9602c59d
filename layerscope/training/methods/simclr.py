"""SimCLR (Chen et al. 2020): two views of an image attract, all other images repel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from layerscope.training.methods import methods

_TEMPERATURE = 0.15


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy, averaged over all 2N views.

    Equation 1 of Guillotine Regularization (OpenReview version): for view i with partner j,
    ``-log exp(s_ij/τ) / Σ_{k≠i} exp(s_ik/τ)`` with cosine similarities s.

    Args:
        first: (n, d) embeddings of the first views.
        second: (n, d) embeddings of the second views, row by row of the same images.
        temperature: τ.
    """
    views = nn.functional.normalize(torch.cat((first, second)).float(), dim=1)
    similarity = views @ views.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    n = len(first)
    partner = torch.arange(2 * n, device=views.device).roll(n)
    return nn.functional.cross_entropy(similarity, partner)


class SimCLR:
    """Contrastive learning with the augmentations that Guillotine Regularization lists."""

    name = "simclr"
    task = ""
    output = 0
    description = (
        f"SimCLR, NT-Xent at temperature {_TEMPERATURE}; views by random crop (20 to 100 % of the "
        "area), colour jitter (0.4, 0.4, 0.2, 0.07; p 0.8), grayscale (p 0.15), Gaussian blur "
        "(sigma 0.1 to 1.5 pixels, first view) and solarisation (p 0.2, second view)"
    )
    citation = (
        "Chen et al., A Simple Framework for Contrastive Learning, ICML 2020 (arXiv:2002.05709); "
        "Bordes et al., Guillotine Regularization, TMLR 2023 (arXiv:2206.13378)"
    )

    def inputs(self, image: Tensor, side: int) -> tuple[Tensor, ...]:
        """Return two views, augmented asymmetrically as in FFCV-SSL's ``train_ssl.py``."""
        shared = (
            v2.RandomResizedCrop(side, scale=(0.2, 1.0), antialias=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.07)], p=0.8),
            v2.RandomGrayscale(0.15),
        )
        first, second = v2.GaussianBlur(5, sigma=(0.1, 1.5)), v2.RandomSolarize(128, p=0.2)
        return tuple(v2.Compose([*shared, last])(image) for last in (first, second))

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Return NT-Xent over the batch."""
        first, second = network(torch.cat(views)).chunk(2)
        return nt_xent(first, second, _TEMPERATURE)


methods.add(SimCLR.name, SimCLR())

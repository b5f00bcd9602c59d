"""Supervised classification: the object's category, by cross-entropy."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.transforms import v2

from layerscope.training.methods import methods


class Category:
    """Softmax regression on the embedding, the usual supervised network."""

    name = "category"
    task = "objects3d-category"
    output = None
    description = (
        "Supervised classification of the object's category, cross-entropy; views by random crop "
        "(70 to 100 % of the area)"
    )
    citation = "Bordes et al., Guillotine Regularization, TMLR 2023 (arXiv:2206.13378)"

    def inputs(self, image: Tensor, side: int) -> tuple[Tensor, ...]:
        """Return one view, as weak as rotation's: wrong labels can be learnt by heart."""
        crop = v2.RandomResizedCrop(side, scale=(0.7, 1.0), ratio=(0.9, 1.1), antialias=True)
        view: Tensor = crop(image)
        return (view,)

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Return the cross-entropy over the categories."""
        return nn.functional.cross_entropy(network(views[0]).float(), targets)


methods.add(Category.name, Category())

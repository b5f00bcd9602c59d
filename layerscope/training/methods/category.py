"""Supervised classification: the object's category, by cross-entropy."""

from __future__ import annotations

from torch import Tensor, nn

from layerscope.training.methods import crop_weakly, methods


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
        return (crop_weakly(image, side),)

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Return the cross-entropy over the categories."""
        return nn.functional.cross_entropy(network(views[0]).float(), targets)


methods.add(Category.name, Category())

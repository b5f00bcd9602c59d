"""Supervised 3D rotation: the object's orientation as a unit quaternion, by squared error."""

from __future__ import annotations

from torch import Tensor, nn

from layerscope.stats.rotation import quaternion_from_euler
from layerscope.training.methods import crop_weakly, methods


class Rotation:
    """Regression of the unit quaternion, the supervised network of Guillotine Regularization."""

    name = "rotation"
    task = "objects3d-rotation"
    output = 4
    description = (
        "Supervised regression of the object's rotation as a unit quaternion (x, y, z, w), mean "
        "squared error; views by random crop (70 to 100 % of the area)"
    )
    citation = "Bordes et al., Guillotine Regularization, TMLR 2023 (arXiv:2206.13378)"

    def inputs(self, image: Tensor, side: int) -> tuple[Tensor, ...]:
        """Return one view; a crop moves the object but does not turn it."""
        return (crop_weakly(image, side),)

    def loss(self, network: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Return the mean squared error over the quaternion's four numbers."""
        target = quaternion_from_euler(targets)
        return nn.functional.mse_loss(network(views[0]).float(), target)


methods.add(Rotation.name, Rotation())

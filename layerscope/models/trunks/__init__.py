"""Trunks: networks up to their representation, built from the names and shapes of tensors."""

from __future__ import annotations

from layerscope.models.contents import Weights
from layerscope.models.declared import Declared
from layerscope.models.trunks import resnet, vit, zoo
from layerscope.models.trunks.trunk import Resample, Trunk, TrunkFacts

__all__ = ["Resample", "Trunk", "TrunkFacts", "build_trunk"]


def build_trunk(tensors: Weights, known: TrunkFacts, declared: Declared) -> Trunk:
    """Return the trunk whose state dict this is, without any classifier.

    ResNets (torchvision's names) and plain vision transformers (timm's names) are told from their
    shapes; everything else is looked up among the architectures of timm and torchvision.

    Raises:
        CheckpointError: No architecture has these names and shapes, or something that the weights
            cannot tell has to be declared.
    """
    known = known.with_declared(declared)
    if resnet.fits(tensors.shapes):
        return resnet.build(tensors, known)
    if vit.fits(tensors.shapes):
        return vit.build(tensors, known)
    return zoo.build(tensors, declared)

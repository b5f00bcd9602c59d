"""Barlow Twins: a backbone and a projector without biases; the loss has a BatchNorm of its own."""

from __future__ import annotations

from dataclasses import replace

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import sequential
from layerscope.models.trunks import TrunkFacts, build_trunk

_TABLES = ("backbone.", "projector.", "bn.")


@register
class BarlowTwins(Family):
    """The full checkpoints of facebookresearch/barlowtwins; its bare trunks are torchvision's."""

    name = "barlow-twins"
    title = "Barlow Twins"
    layout = "model: module.backbone., module.projector.{0,1,3,4,6}, module.bn."
    source = "facebookresearch/barlowtwins main.py, evaluate.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        found = (r"backbone\.conv1\.weight$", r"projector\.0\.weight$", r"bn\.running_mean$")
        if not weights.has(*found) or weights.without(*_TABLES):
            return ""
        if weights.has(r"bn\.weight$") or weights.has(r"projector\.0\.bias$"):
            return ""
        return "backbone, a projector without biases and an affine-free bn"

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        parts = backbone_and_projector(contents.state_dict, declared)
        reason = "affine-free BatchNorm of the loss, behind the projector's output"
        return replace(parts, ignored={r"(.*[/.])?bn\.": reason})


def backbone_and_projector(weights: Weights, declared: Declared) -> Parts:
    """Return the parts of a ResNet called ``backbone`` and an MLP called ``projector``."""
    projector = weights.only("projector.")
    return Parts(
        trunk=build_trunk(weights.under("backbone."), TrunkFacts(), declared),
        tensors=projector,
        head=sequential(projector, "projector.", declared.head_act or "relu"),
    )

"""VICReg: a backbone of any width and a projector whose hidden layers have biases.

Its own ResNet pads the image by one pixel and its stem by two: together torchvision's three.
"""

from __future__ import annotations

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.families.barlow_twins import backbone_and_projector


@register
class VICReg(Family):
    """The full checkpoints of facebookresearch/vicreg; its bare trunks are torchvision's."""

    name = "vicreg"
    title = "VICReg"
    layout = "model: module.backbone., module.projector.{0,1,3,4,6}"
    source = "facebookresearch/vicreg main_vicreg.py, resnet.py, evaluate.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if not weights.has(r"backbone\.conv1\.weight$", r"projector\.0\.weight$"):
            return ""
        if weights.without("backbone.", "projector.") or weights.has(r"backbone\.fc\."):
            return ""
        if _biased(weights.under("projector.")):
            return "backbone and a projector with biases in all its layers but the last"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        return backbone_and_projector(contents.state_dict, declared)


def _biased(projector: Weights) -> bool:
    """Return whether the hidden Linears have biases, and the last one, at the end, has none."""
    numbers = [name.partition(".")[0] for name in projector]
    if not all(map(str.isdecimal, numbers)):
        return False
    indices = set(map(int, numbers))
    layers = [n for n in sorted(indices) if len(projector.shapes.get(f"{n}.weight", ())) == 2]
    hidden = all(f"{layer}.bias" in projector for layer in layers[:-1])
    return (
        bool(layers)
        and hidden
        and layers[-1] == max(indices)
        and f"{layers[-1]}.bias" not in projector
    )

"""SimSiam: an encoder whose ``fc`` is a three-layer head, and a predictor behind it."""

from __future__ import annotations

from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import sequential
from layerscope.models.trunks import TrunkFacts, build_trunk


@register
class SimSiam(Family):
    """The checkpoints of facebookresearch/simsiam."""

    name = "simsiam"
    title = "SimSiam"
    layout = "state_dict: module.encoder., module.encoder.fc.{0,1,3,4,6,7}, module.predictor."
    source = "facebookresearch/simsiam simsiam/builder.py, main_simsiam.py, main_lincls.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        head = (r"encoder\.fc\.6\.weight$", r"encoder\.fc\.7\.running_mean$")
        if weights.has(r"encoder\.conv1\.weight$", *head, r"predictor\.0\.weight$"):
            return "encoder.fc with three layers, the last BatchNorm affine-free, and a predictor"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        encoder, act = weights.under("encoder."), declared.head_act or "relu"
        fc, predictor = encoder.only("fc."), weights.only("predictor.")
        return Parts(
            trunk=build_trunk(encoder.without("fc."), TrunkFacts(), declared),
            tensors=fc.joined(predictor),
            head=sequential(fc, "fc.", act),
            predictor=sequential(predictor, "predictor.", act),
        )

"""SimCLR by sthalles: a torchvision ResNet whose ``fc`` is the two-layer head."""

from __future__ import annotations

from dataclasses import replace

from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import sequential
from layerscope.models.preprocessing import UNNORMALISED
from layerscope.models.trunks import TrunkFacts, build_trunk

_STL10 = replace(UNNORMALISED, resize=96, crop=96)
_HEAD = {"fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"}


@register
class SimCLRSthalles(Family):
    """The checkpoints of sthalles/SimCLR."""

    name = "simclr-sthalles"
    title = "SimCLR (sthalles)"
    layout = "state_dict: backbone.conv1, backbone.fc.0, backbone.fc.2"
    source = "sthalles/SimCLR simclr.py, models/resnet_simclr.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if not weights.has(r"backbone\.conv1\.weight$") or weights.without("backbone."):
            return ""
        head = weights.under("backbone.").only("fc.")
        return "backbone alone, its fc two layers: fc.0 and fc.2" if set(head) == _HEAD else ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        network = contents.state_dict.under("backbone.")
        head = network.only("fc.")
        return Parts(
            trunk=build_trunk(network.without("fc."), TrunkFacts(stem="imagenet"), declared),
            tensors=head,
            head=sequential(head, "fc.", declared.head_act or "relu"),
            preprocessing=_STL10,
            notes=(
                "Trained on images in [0, 1] as they are, of 96 pixels (STL-10, the default) or 32 "
                "(CIFAR-10, --declare image_size=32).",
            ),
        )

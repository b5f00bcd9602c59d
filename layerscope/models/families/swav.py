"""SwAV and DeepCluster-v2: a trunk with torchvision's names, a projection head and prototypes.

Their own ResNet, of any width, pads the image by one pixel and its stem by two: together
torchvision's three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, l2, linear, sequential
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks import TrunkFacts, build_trunk

SWAV = replace(IMAGENET, std=(0.228, 0.224, 0.225))
"""``.228``, not ``.229``: in pre-training (src/multicropdataset.py) and in eval_linear.py."""


@register
class SwAV(Family):
    """The checkpoints of facebookresearch/swav, and its released state dicts."""

    name = "swav"
    title = "SwAV and DeepCluster-v2"
    layout = "module.conv1., module.layer1. to layer4., module.projection_head., module.prototypes."
    source = "facebookresearch/swav src/resnet50.py, src/multicropdataset.py, eval_linear.py"

    def recognise(self, contents: Contents) -> str:
        if contents.state_dict.has(r"conv1\.weight$", r"projection_head\.(0\.)?weight$"):
            return "projection_head beside conv1"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        behind = weights.only("projection_head.", "prototypes.")
        return Parts(
            trunk=build_trunk(
                weights.without("projection_head.", "prototypes."), TrunkFacts(), declared
            ),
            tensors=behind,
            head=(*_projection(behind, declared.head_act or "relu"), l2()),
            logits=_prototypes(behind),
            preprocessing=SWAV,
        )


def _projection(behind: Weights, activation: Activation) -> tuple[Operation, ...]:
    if "projection_head.weight" in behind:
        return (linear("projection_head"),)
    return sequential(behind, "projection_head.", activation)


def _prototypes(behind: Weights) -> Mapping[str, Sequence[Operation]]:
    if "prototypes.weight" in behind:
        return {"Q": (linear("prototypes"),)}
    numbers = behind.numbers("prototypes.prototypes")
    return {
        f"Q{place}": (linear(f"prototypes.prototypes{number}"),)
        for place, number in enumerate(numbers, start=1)
    }

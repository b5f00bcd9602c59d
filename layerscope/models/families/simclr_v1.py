"""SimCLR v1 of TensorFlow, converted by tonylins: a trunk and a classifier, but no head."""

from __future__ import annotations

from torch import Tensor

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import linear
from layerscope.models.preprocessing import UNNORMALISED
from layerscope.models.trunks import TrunkFacts, build_trunk, resnet

_FIRST = "layer1.0."
_NO_HEAD = (
    "The release of SimCLR v1 holds no projection head, so the drop behind the trunk cannot be "
    "seen in it."
)
_NO_BIAS = (
    "Q is the classifier that was trained on the frozen representation; the conversion lost its "
    "bias (the file's is random), so its scores are right up to a constant for each class."
)


CONVERSION = (
    "No BatchNorm has counted a batch, as after a conversion from another framework. SimCLR v1 of "
    "TensorFlow takes images in [0, 1] without mean and std: state them in a card where it is one."
)
"""What to say of torchvision's names where the order that tells the family is lost."""


@register
class SimCLRv1(Family):
    """The files that tonylins/simclr-converter writes."""

    name = "simclr-v1"
    title = "SimCLR v1 (tonylins' conversion, 1x, 2x, 4x)"
    layout = "state_dict: conv1., layer1. to layer4., each downsample before its conv1; fc."
    source = "tonylins/simclr-converter convert.py, resnet_wider.py, eval.py"

    def recognise(self, contents: Contents) -> str:
        return _CONVERTED if is_converted(contents.state_dict) else ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        classifier = weights.only("fc.weight")
        return Parts(
            trunk=build_trunk(weights.without("fc."), TrunkFacts(stem="imagenet"), declared),
            tensors=classifier,
            logits={"Q": (linear("fc"),)} if classifier else {},
            ignored={r".*\bfc\.bias$": "random: the conversion lost the classifier's bias"},
            preprocessing=UNNORMALISED,
            notes=(_NO_HEAD, _NO_BIAS) if classifier else (_NO_HEAD,),
        )


_CONVERTED = "torchvision's names, but downsample before conv1, and no BatchNorm has ever counted"


def is_converted(weights: Weights) -> bool:
    """Return whether a state dict of torchvision's names was written by this converter.

    Its names are torchvision's own; their order is not. The converter's network registers each
    block's ``downsample`` before the block's convolutions, as TensorFlow counts its variables, and
    it was filled without ever being trained, so that every BatchNorm's counter is at 0.

    Args:
        weights: A state dict in the order of its file.
    """
    if not resnet.fits(weights.without("fc.").shapes) or weights.has(r"fc\.\d"):
        return False
    order = [name.removeprefix(_FIRST) for name in weights if name.startswith(_FIRST)]
    blocks = {"conv1.weight", "conv3.weight", "downsample.0.weight"} <= set(order)
    first = blocks and order.index("downsample.0.weight") < order.index("conv1.weight")
    return first and not any(counter.any() for counter in _counters(weights))


def is_uncounted(weights: Weights) -> bool:
    """Return whether the BatchNorms hold counters, and none of them has counted a batch."""
    counters = _counters(weights)
    return bool(counters) and not any(counter.any() for counter in counters)


def _counters(weights: Weights) -> list[Tensor]:
    return [t for name, t in weights.items() if name.endswith("num_batches_tracked")]

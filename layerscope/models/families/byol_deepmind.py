"""BYOL by DeepMind, as byol-convert writes it: Haiku's tensors by torchvision's keys."""

from __future__ import annotations

from timm.layers import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import linear
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import TrunkFacts, build_trunk, resnet

_CLASSIFIER = "fc is the classifier that was trained beside BYOL; it is no head."
_PADDING = (
    "Haiku pads as TensorFlow does, with the odd pixel at the right and below; so does this trunk."
)


@register
class BYOLDeepMind(Family):
    """DeepMind's ResNets of BYOL, converted from their pickles; projector and predictor are lost.

    The converters walk through Haiku's parameters first and through its statistics afterwards.
    That order is the only trace in the file: the names are torchvision's, the padding is not.
    """

    name = "byol-deepmind"
    title = "BYOL (DeepMind, converted)"
    layout = "conv1., layer1. to layer4., [fc.], all running statistics behind all weights"
    source = "chigur/byol-convert convert.py, resnet.py; deepmind-research byol"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if resnet.fits(weights.without("fc.").shapes) and statistics_last(weights):
            return "torchvision's names, all running statistics behind all weights"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        trunk = build_trunk(weights.without("fc."), TrunkFacts(stem="imagenet"), declared)
        _pad_as_tensorflow(trunk.module)
        classifier = weights.only("fc.")
        return Parts(
            trunk=trunk,
            tensors=classifier,
            logits={"Q": (linear("fc"),)} if classifier else {},
            preprocessing=IMAGENET_BICUBIC,
            notes=(_PADDING, *([_CLASSIFIER] if classifier else [])),
        )


def statistics_last(weights: Weights) -> bool:
    """Return whether every running statistic comes behind every weight, and none is counted."""
    running = [name.rpartition(".")[2].startswith("running_") for name in weights]
    first = running.index(True) if True in running else 0
    return first > 0 and all(running[first:]) and not weights.has(r".*num_batches_tracked$")


def _pad_as_tensorflow(network: nn.Module) -> None:
    """Give every strided convolution and pooling of a ResNet TensorFlow's ``SAME`` padding.

    With stride 1 and odd kernels both paddings are the same.
    """
    for name, module in list(network.named_modules()):
        parent = network.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.MaxPool2d):
            setattr(parent, name.rpartition(".")[2], MaxPool2dSame(3, stride=2))
        elif isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            same = Conv2dSame(
                module.in_channels,
                module.out_channels,
                module.kernel_size,
                stride=2,
                groups=module.groups,
                bias=False,
            )
            setattr(parent, name.rpartition(".")[2], same)

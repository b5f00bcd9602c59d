"""SupContrast (SupCon, SimCLR and SupCE): an encoder for CIFAR with a head or a classifier."""

from __future__ import annotations

from dataclasses import replace

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, l2, linear, sequential
from layerscope.models.preprocessing import CIFAR10, IMAGENET
from layerscope.models.trunks import TrunkFacts, build_trunk

_CIFAR10 = replace(CIFAR10, std=(0.2023, 0.1994, 0.2010))
_HEADS = (
    {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"},
    {"head.0.weight", "head.0.bias"},
    {"head.weight", "head.bias"},
    {"fc.weight", "fc.bias"},
)
_NAMES = ((r"^encoder\.(module\.)?", ""),)
_BLOCKS = ((r"\.shortcut\.", ".downsample."),)


@register
class SupContrast(Family):
    """The checkpoints of HobbitLong/SupContrast."""

    name = "supcontrast"
    title = "SupContrast (SupCon, SimCLR, SupCE)"
    layout = "model: encoder. or encoder.module., with head.0 and head.2, head, or fc"
    source = "HobbitLong/SupContrast networks/resnet_big.py, util.py, main_supcon.py, main_ce.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        head = set(weights.without("encoder."))
        if weights.has(r"encoder\.(module\.)?conv1\.weight$") and head in _HEADS:
            return f"encoder beside {sorted(head)[0].removesuffix('.bias')} and no projector"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        network = weights.only("encoder.").renamed(_NAMES).renamed(_BLOCKS)
        cifar = network.shapes["conv1.weight"][-1] == 3
        head = weights.only("head.", "fc.")
        return Parts(
            trunk=build_trunk(network, TrunkFacts(stem="cifar" if cifar else "imagenet"), declared),
            tensors=head,
            head=_operations(head, declared),
            ignored={
                r"model_ema/": "the momentum copy",
                r"(contrast|amp)/": "state of the training",
            },
            preprocessing=_CIFAR10 if cifar else IMAGENET,
            notes=(_CHANNELS,) if cifar else (),
        )


_CHANNELS = (
    "The channel statistics are CIFAR-10's, the default; a run on other images used others, which "
    "a card can state."
)


def _operations(head: Weights, declared: Declared) -> tuple[Operation, ...]:
    if "fc.weight" in head:
        return (linear("fc"),)
    if "head.weight" in head:
        return (linear("head"), l2())
    return sequential(head, "head.", declared.head_act or "relu", last=[l2()])

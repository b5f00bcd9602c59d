"""SimCLR by AndrewAtanov: ``convnet`` and a projection of named layers, for ImageNet or CIFAR."""

from __future__ import annotations

from dataclasses import replace

from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import act, linear, norm
from layerscope.models.preprocessing import UNNORMALISED
from layerscope.models.trunks import TrunkFacts, build_trunk

_CIFAR = replace(UNNORMALISED, resize=32, crop=32)


@register
class SimCLRAndrewAtanov(Family):
    """The checkpoints of AndrewAtanov/simclr-pytorch."""

    name = "simclr-andrewatanov"
    title = "SimCLR (AndrewAtanov)"
    layout = "state_dict: convnet., projection.fc1, .bn1, .fc2, .bn2"
    source = "AndrewAtanov/simclr-pytorch models/encoder.py, models/resnet.py, models/ssl.py"

    def recognise(self, contents: Contents) -> str:
        layers = (rf"projection\.{layer}\.weight$" for layer in ("fc1", "bn1", "fc2", "bn2"))
        if contents.state_dict.has(r"convnet\.conv1\.weight$", *layers):
            return "convnet beside projection.fc1, bn1, fc2 and bn2"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        network = weights.under("convnet.").without("fc.")
        cifar = network.shapes["conv1.weight"][-1] == 3
        return Parts(
            trunk=build_trunk(network, TrunkFacts(stem="cifar" if cifar else "imagenet"), declared),
            tensors=weights.only("projection."),
            head=(
                linear("projection.fc1"),
                norm("projection.bn1"),
                act(declared.head_act or "relu"),
                linear("projection.fc2"),
                norm("projection.bn2"),
            ),
            ignored={
                r".*\bconvnet\.fc\.": "torchvision's classifier, which the training never used",
                r"(optim|sched|logs)[^/]*/": "state of the training",
            },
            preprocessing=_CIFAR if cifar else UNNORMALISED,
        )

"""lightning-bolts: SimCLR, BYOL and SimSiam as Lightning modules."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.heads import l2, sequential
from layerscope.models.preprocessing import CIFAR10, IMAGENET
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk

_SIMCLR = (r"encoder\.conv1\.weight$", r"projection\.model\.0\.weight$")
_SIAMESE = (r"online_network\.encoder\.", r"online_network\.projector\.model\.0\.weight$")
_NETWORKS: dict[Branch, str] = {"online": "online_network.", "momentum": "target_network."}
_CIFAR = replace(
    CIFAR10,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
)
_PREPROCESSING = {
    "cifar10": _CIFAR,
    "stl10": replace(IMAGENET, resize=96, crop=96, mean=(0.43, 0.42, 0.39), std=(0.27, 0.26, 0.27)),
}


@register
class LightningBolts(Family):
    """The checkpoints of SimCLR, BYOL and SimSiam of Lightning-Universe/lightning-bolts."""

    name = "lightning-bolts"
    title = "lightning-bolts"
    layout = "state_dict: encoder., projection.model.; or online_network., target_network."
    source = "Lightning-Universe/lightning-bolts pl_bolts/models/self_supervised"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if weights.has(*_SIMCLR):
            return "encoder beside projection.model"
        if weights.has(*_SIAMESE):
            return "online_network with an encoder and projector.model"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        weights = contents.state_dict
        if weights.has(*_SIMCLR):
            prefix, last = "projection.", [l2()]
            found = weights if branch == "online" else Weights()
        else:
            prefix, last = "projector.", []
            found = weights.under(_NETWORKS[branch])
        network = require_weights(found, branch)
        behind = network.only(prefix)
        if branch == "online":
            behind = behind.joined(weights.only("predictor."))
        activation = declared.head_act or "relu"
        return Parts(
            trunk=_trunk(network.under("encoder.").without("fc."), contents, declared),
            tensors=behind,
            head=sequential(behind, f"{prefix}model.", activation, last=last),
            predictor=sequential(behind, "predictor.model.", activation),
            ignored={
                r".*\bencoder\.fc\.": "torchvision's classifier, which the method skips",
                r".*\b(online_network|target_network|predictor)\.": "the other branch's weights",
                r".*\bnon_linear_evaluator\.": "a classifier trained beside the method",
            },
            preprocessing=_PREPROCESSING.get(
                str(contents.value("hyper_parameters", "dataset")), IMAGENET
            ),
        )


def _trunk(own: Weights, contents: Contents, declared: Declared) -> Trunk:
    # The stem's kernel has one stride each; whether a max pooling follows is a setting of its own.
    small = own.shapes.get("conv1.weight", (0,))[-1] == 3
    pooled = _pooled(contents, declared)
    known = TrunkFacts(stem="cifar" if small else "imagenet")
    trunk = build_trunk(own, known, replace(declared, stem=None))
    trunk.module.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pooled else nn.Identity()
    return replace(trunk, details={**trunk.details, "max_pooling": pooled})


def _pooled(contents: Contents, declared: Declared) -> bool:
    if declared.stem is not None:
        return declared.stem != "cifar"
    if contents.state_dict.has(*_SIAMESE):
        return True
    settings = contents.value("hyper_parameters", "maxpool1")
    if not isinstance(settings, bool):
        raise CheckpointError(
            "The file does not say whether a max pooling follows the stem's convolution.",
            hint="Write --declare stem=imagenet (with one) or stem=cifar (without).",
        )
    return settings

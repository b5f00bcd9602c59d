"""MoCo v3: a base and a momentum encoder, ResNet or ViT, each with its head; one predictor."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register
from layerscope.models.heads import l2, sequential
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk

_ENCODERS: dict[Branch, str] = {"online": "base_encoder.", "momentum": "momentum_encoder."}
_FACTS = TrunkFacts(attention_heads={384: 12, 768: 12})
"""vits.py gives its ViT-S 12 heads of 32 features, where everybody else has 6 of 64."""
_PATCH = 16
_STEM_LAST = "patch_embed.proj.12.weight"


@register
class MoCoV3(Family):
    """The checkpoints of facebookresearch/moco-v3.

    Its linear probe resizes to 256 with torchvision's bilinear filter for ResNets and ViTs alike
    (main_lincls.py).
    """

    name = "moco-v3"
    title = "MoCo v3"
    layout = "state_dict: module.base_encoder., module.momentum_encoder., module.predictor."
    source = "facebookresearch/moco-v3 moco/builder.py, vits.py, main_lincls.py"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        if contents.state_dict.has(r"base_encoder\.[a-z]", r"momentum_encoder\.[a-z]"):
            return "base_encoder beside momentum_encoder"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        branch, act = branch_of(self, declared), declared.head_act or "relu"
        encoder = weights.under(_ENCODERS[branch])
        name = "head." if encoder.has(r"head\.\d") else "fc."
        head = encoder.only(name)
        # Momentum embeddings are compared as they are; online ones go through the predictor.
        last = [l2()] if branch == "momentum" else []
        predictor = Weights() if branch == "momentum" else weights.only("predictor.")
        return Parts(
            trunk=_trunk(encoder.without(name), declared),
            tensors=head.joined(predictor),
            head=sequential(head, name, act, last=last),
            predictor=sequential(predictor, "predictor.", act),
            ignored={
                r"(.*[/.])?(base|momentum)_encoder\.": "the other branch's weights",
                r"(.*[/.])?predictor\.": "of the online branch alone",
            },
        )


def _trunk(tensors: Weights, declared: Declared) -> Trunk:
    if tensors.has(r"patch_embed\.proj\.\d"):
        return _convolutional(tensors, declared)
    return build_trunk(tensors, _FACTS, declared)


def _convolutional(tensors: Weights, declared: Declared) -> Trunk:
    """Return a ViT whose patches are embedded by five convolutions (Xiao et al. 2021)."""
    shape = tensors.shapes.get(_STEM_LAST, ())
    if len(shape) != 4:
        raise CheckpointError(
            f"The convolutional stem's {_STEM_LAST} is missing or misshapen.",
            hint="A stem of MoCo v3 has convolutions at patch_embed.proj.{0,3,6,9,12}.",
        )
    width = shape[0]
    stem = tensors.only("patch_embed.")
    plain = tensors.without("patch_embed.").joined(
        Weights(
            {
                "patch_embed.proj.weight": torch.zeros(width, 3, _PATCH, _PATCH),
                "patch_embed.proj.bias": torch.zeros(width),
            }
        )
    )
    trunk = build_trunk(plain, _FACTS, declared)
    trunk.module.get_submodule("patch_embed").proj = _stem(width)
    return replace(
        trunk,
        weights=trunk.weights.without("patch_embed.").joined(stem),
        details={**trunk.details, "stem": "convolutional"},
    )


def _stem(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (width // 8, width // 4, width // 2, width):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        inputs = outputs
    return nn.Sequential(*layers, nn.Conv2d(inputs, width, 1))

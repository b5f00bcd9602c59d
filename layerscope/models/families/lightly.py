"""lightly: backbones and heads by the names of its examples and benchmarks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Branch, Declared
from layerscope.models.families import Family, Parts, register, require_weights
from layerscope.models.families.byol_yaox12 import CHILDREN
from layerscope.models.heads import (
    Operation,
    l2,
    linear,
    numbered_logits,
    sequential,
    weight_normed,
)
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk, vit

_SHORTCUT = ((r"^(\d\.\d+|layer\d\.\d+)\.shortcut\.", r"\1.downsample."),)
_GENERATED = (  # the children of lightly's own ResNet: conv1, bn1, layer1 to layer4
    *CHILDREN[:2],
    *((rf"^{stage + 1}\.", f"layer{stage}.") for stage in range(1, 5)),
)
_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj", r"blocks.\1.attn.proj"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(0|linear_1)\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(3|linear_2)\.", r"blocks.\1.mlp.fc2."),
)
_STATISTICS = ("running_mean", "running_var")
_SMALL = replace(IMAGENET, resize=32, crop=32)
"""What the CIFAR-10 benchmark does: ImageNet's statistics, no crop."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What one of the examples calls its branches: backbone, head; usual branch first."""

    online: tuple[str, str]
    momentum: tuple[str, str] | None = None
    usual: Branch = "online"

    def of(self, branch: Branch) -> tuple[str, str]:
        """Return the names of a branch's backbone and head, empty where it has none."""
        return self.online if branch == "online" else self.momentum or ("", "")


_PLAIN = ("backbone", "projection_head")
_NAMINGS = (
    Naming(("student_backbone", "student_head"), ("teacher_backbone", "teacher_head"), "momentum"),
    Naming(
        ("student_backbone", "student_head.dino_head"),
        ("teacher_backbone", "teacher_head.dino_head"),
        "momentum",
    ),
    Naming(("student_backbone", "student_projection_head"), _PLAIN, "momentum"),
    Naming(("anchor_backbone", "anchor_projection_head"), _PLAIN, "momentum"),
    Naming(("backbone", "head"), ("teacher_backbone", "teacher_head"), "momentum"),
    Naming(_PLAIN, ("backbone_momentum", "projection_head_momentum")),
    Naming(_PLAIN, ("teacher_backbone", "teacher_projection_head")),
    Naming(_PLAIN, ("key_backbone", "key_projection_head")),
    Naming(
        ("backbone", "projection_head_global"),
        ("backbone_momentum", "projection_head_global_momentum"),
    ),
    Naming(_PLAIN),
)
_IGNORED = {
    r".*\b(online|knn)_classifier\.": "a classifier trained beside the method",
    r".*\b(criterion|memory_bank|queues|center|smog|prototypes$|mask_token$)": (
        "state of the training"
    ),
    r".*\bbackbone(_momentum)?\.(vit\.)?(head|heads|fc)\.": "a classifier that the method skips",
    r".*(projection_head_local|local_projection_head)": "projects places of the map",
    r".*\bibot_head\.": "reads patches, not images",
    r".*(backbone|head)": "the other branch's weights",
}


@register
class Lightly(Family):
    """The networks of lightly-ai/lightly, saved by Lightning or as a state dict."""

    name = "lightly"
    title = "lightly"
    layout = "[state_dict:] backbone. (named, or children by index), projection_head.layers."
    source = "lightly-ai/lightly lightly/models/modules/heads.py, examples, benchmarks"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        naming = _naming(contents.state_dict)
        return f"{naming.online[0]} and {naming.online[1]}.layers" if naming else ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        naming = _naming(weights) or _NAMINGS[-1]
        branch = declared.branch or naming.usual
        backbone, name = naming.of(branch)
        trunk, small = _trunk(
            require_weights(weights.under(f"{backbone}.") if backbone else Weights(), branch),
            declared,
        )
        behind = weights.under(f"{name}.").within("head.")
        if branch == "online":
            behind = behind.joined(weights.only("prediction_head."))
        behind = behind.joined(weights.only("prototypes."))
        activation = declared.head_act or _activation(trunk, behind, weights)
        normalised = behind.has(r"head\.last_layer\.") or behind.has(r"prototypes\.")
        return Parts(
            trunk=trunk,
            tensors=behind,
            head=sequential(behind, "head.layers.", activation, last=[l2()] if normalised else []),
            predictor=sequential(behind, "prediction_head.layers.", declared.head_act or "relu"),
            logits=_logits(behind),
            ignored=_IGNORED,
            preprocessing=_SMALL if small else IMAGENET,
            architecture={"branch": branch} if naming.momentum else {},
        )


def _naming(weights: Weights) -> Naming | None:
    for naming in _NAMINGS:
        pairs = [naming.online, *([naming.momentum] if naming.momentum else [])]
        if all(
            weights.has(rf"{re.escape(backbone)}\.", rf"{re.escape(head)}\.layers\.0\.weight$")
            for backbone, head in pairs
        ):
            return naming
    return None


def _trunk(own: Weights, declared: Declared) -> tuple[Trunk, bool]:
    """Return the trunk, and whether it is lightly's own ResNet for small images."""
    if own.has(r"(layer2|3)\.0\.shortcut\."):
        return _small_trunk(own.renamed(_SHORTCUT), declared), True
    if own.has(r"0\.weight$", r"4\.0\.conv1\.weight$"):
        return build_trunk(own.renamed(CHILDREN), _stem(own, "0.weight"), declared), False
    if own.has(r"vit\."):
        own = own.under("vit.")
    if own.has(r"encoder\.layers\.encoder_layer_0\."):
        own = own.without("heads.").renamed(_TORCHVISION_VIT)
    if vit.fits(own.without("head.").shapes):
        own = own.without("head.")
    return build_trunk(own, _stem(own, "conv1.weight"), declared), False


def _small_trunk(own: Weights, declared: Declared) -> Trunk:
    children = _one_split(own.renamed(_GENERATED))
    trunk = build_trunk(children, TrunkFacts(stem="cifar"), declared)
    if own.has(r"0\.weight$"):
        # The stem's ReLU is a call and no child: the Sequential of the children goes without it.
        trunk.module.relu = nn.Identity()
        return replace(trunk, notes=(*trunk.notes, "Its stem has no ReLU, as lightly trains it."))
    return trunk


def _one_split(own: Weights) -> Weights:
    """Average the statistics of a SplitBatchNorm over its splits, as its eval mode does."""
    for name, shape in own.shapes.items():
        owner, _, kind = name.rpartition(".")
        weight = own.shapes.get(f"{owner}.weight", shape)
        if kind not in _STATISTICS or not len(shape) == len(weight) == 1:
            continue
        several = shape[0] > weight[0] > 0 and shape[0] % weight[0] == 0
        if several and own[name].is_floating_point():
            averaged = own[name].reshape(-1, weight[0]).mean(0)
            own = own.with_tensor(name, averaged, [name])
    return own


def _stem(own: Weights, name: str) -> TrunkFacts:
    return TrunkFacts(stem=None if own.shapes.get(name, (0,))[-1] == 3 else "imagenet")


def _activation(trunk: Trunk, behind: Weights, weights: Weights) -> Activation | None:
    """Return the activation of the only head class that has these tensors, if there is only one.

    On a ResNet all heads but DINO's, which has a last layer, have ReLUs. On a transformer the head
    of MSN, with a GELU, has the very tensors of Barlow Twins', with a ReLU.
    """
    if behind.has(r"head\.last_layer\.") or weights.has(r"anchor_projection_head\."):
        return "gelu"
    last = max(behind.numbers("head.layers."), default=None)
    if not trunk.name.startswith("vit") or f"head.layers.{last}.running_mean" in behind:
        return "relu"
    return None


def _logits(behind: Weights) -> Mapping[str, Sequence[Operation]]:
    if behind.has(r"head\.last_layer\."):
        return {"Q": (weight_normed("head.last_layer"),)}
    weights = [name for name in behind.only("prototypes.") if name.endswith(".weight")]
    return numbered_logits([linear(name.removesuffix(".weight")) for name in weights])

"""Plain vision transformers by timm's names, whoever trained them, perhaps with classifier."""

from __future__ import annotations

from collections.abc import Mapping

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, families, register
from layerscope.models.heads import linear
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk, vit
from layerscope.models.trunks.positions import is_sine_cosine

_HEADS = {
    192: 3,
    256: 4,
    320: 5,
    384: 6,
    512: 8,
    640: 10,
    768: 12,
    832: 13,
    896: 14,
    1024: 16,
    1152: 16,
    1280: 16,
    1408: 16,
    1536: 24,
    1664: 16,
}
"""By width, as every architecture of timm has it that the conditions below leave."""

_MOCO_V3 = {384: 12, 768: 12}
_PATCH_MEAN = frozenset({768})
"""Widths of which timm has networks without class token with several numbers of heads."""
_PLAIN_MLP = frozenset({1536})
"""The same, of networks without gated MLP."""
_CLIP_EPS = 1e-5


@register
class ViT(Family):
    """The state dict of one plain transformer: releases of DINO, MoCo v3, DeiT, timm's own."""

    name = "vit"
    title = "plain vision transformers"
    layout = "cls_token, pos_embed, patch_embed., blocks., norm., head."
    source = "huggingface/pytorch-image-models timm/models/vision_transformer.py"
    general = True

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        classifier = set(weights.only("head."))
        plain = vit.fits(weights.without("head.").shapes)
        if not plain or not classifier <= {"head.weight", "head.bias"}:
            return ""
        if is_sine_cosine(weights.get("pos_embed"), rows_first=False):
            return ""  # MAE's
        if families["timm"].recognise(contents):
            return ""  # It names its architecture, which tells what the weights cannot.
        return "patch_embed and blocks, all by the names of a plain transformer"

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        classifier = weights.only("head.")
        trunk = build_trunk(weights.without("head."), _facts(weights), declared)
        return Parts(
            trunk=trunk,
            tensors=classifier,
            head=(linear("head"),) if classifier else (),
            ignored={r"(model|state_dict)_ema/": "averaged weights; save them alone to use them"},
            preprocessing=IMAGENET_BICUBIC,
            notes=_notes(trunk, declared),
        )


def _facts(weights: Weights) -> TrunkFacts:
    if "norm_pre.weight" in weights:
        # CLIP's structure, which was trained with two activations.
        return TrunkFacts(attention_heads=_heads(weights), trunk_act=None, eps=_CLIP_EPS)
    return TrunkFacts(attention_heads=_heads(weights))


def _heads(weights: Weights) -> Mapping[int, int]:
    if is_sine_cosine(weights.get("pos_embed"), rows_first=True):
        return _MOCO_V3
    gated = vit.outline(weights.without("head.").shapes).gated
    unsure = (frozenset() if gated else _PLAIN_MLP) | (
        frozenset() if "cls_token" in weights else _PATCH_MEAN
    )
    return {width: number for width, number in _HEADS.items() if width not in unsure}


def _notes(trunk: Trunk, declared: Declared) -> tuple[str, ...]:
    notes = []
    if declared.attention_heads is None:
        heads = trunk.details["attention_heads"]
        notes.append(
            f"The file does not tell the number of attention heads: {heads} is the usual number; "
            "--declare attention_heads=... changes it."
        )
    if declared.trunk_act is None:
        notes.append(
            f"The file does not tell the activation of the blocks: {trunk.details['activation']} "
            "is the usual one; --declare trunk_act=... changes it."
        )
    return (
        *notes,
        "The file does not tell what its images looked like: ImageNet's mean and standard "
        "deviation are the usual ones, but networks of timm often had 0.5; a card states others.",
    )

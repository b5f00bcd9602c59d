"""DINOv2: transformers with a mask token and layer scale, alone or as a training's teacher."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.families.dino import KNOWN, projector
from layerscope.models.heads import Operation, weight_normed
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import TrunkFacts, build_trunk, vit
from layerscope.models.trunks.positions import bicubic

_NAMES = (
    (r"^blocks\.\d+\.(\d+)\.mlp\.w12\.", r"blocks.\1.mlp.fc1."),
    (r"^blocks\.\d+\.(\d+)\.mlp\.w3\.", r"blocks.\1.mlp.fc2."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"^register_tokens$", "reg_token"),
)
"""Blocks in chunks keep their number over all chunks, as ``blocks.<chunk>.<number>.``."""

_EVALUATED = 224
_WITH_REGISTERS = TrunkFacts(resample=bicubic(antialias=True))


@register
class DINOv2(Family):
    """The releases and teacher checkpoints of facebookresearch/dinov2."""

    name = "dinov2"
    title = "DINOv2"
    layout = "cls_token, mask_token, blocks.0.ls1. | teacher: backbone., dino_head., ibot_head."
    source = (
        "facebookresearch/dinov2 models/vision_transformer.py, hub/backbones.py, train/train.py"
    )

    def recognise(self, contents: Contents) -> str:
        backbone, _ = split_teacher(contents)
        if {"mask_token", "pos_embed"} <= set(backbone) and backbone.has(
            r"blocks\.(\d+\.)?0\.ls1\.gamma$"
        ):
            return "a transformer with a mask token, position embeddings and layer scale"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        backbone, head = split_teacher(contents)
        backbone = backbone.without("mask_token").renamed(_NAMES)
        notes = () if head else ("DINOv2's releases hold no head; its training's files do.",)
        return Parts(
            trunk=build_trunk(backbone, _facts(backbone), declared),
            **class_token_head(head, weight_normed("last_layer"), declared),
            ignored={
                r".*\bmask_token$": "stands for the masked patches",
                r".*\bibot_head\.": "reads masked patches, not the representation",
            },
            preprocessing=IMAGENET_BICUBIC,
            notes=notes,
        )


def split_teacher(contents: Contents) -> tuple[Weights, Weights]:
    """Return a trunk's tensors and its head's: a training's teacher, or a release without head."""
    teacher = unwrapped(contents.table("teacher"))
    backbone = teacher.under("backbone.") if teacher else contents.state_dict
    return backbone, teacher.under("dino_head.")


def class_token_head(head: Weights, last: Operation, declared: Declared) -> dict[str, Any]:
    """Return the entries of ``Parts`` for a head whose last operation gives logits, or for none."""
    return {
        "tensors": head,
        "head": projector(head, declared.head_act or "gelu") if head else (),
        "logits": {"Q": (last,)} if head else {},
    }


def _facts(backbone: Weights) -> TrunkFacts:
    # Trained last at 518 pixels, the releases are evaluated at 224 as they are in its own code.
    known = _WITH_REGISTERS if "reg_token" in backbone else KNOWN
    patch = vit.outline(backbone.shapes).patch
    positions = backbone.shapes["pos_embed"]
    trained = patch * math.isqrt(max(math.prod(positions[1:2]) - 1, 0))
    shrinks = trained > _EVALUATED and not _EVALUATED % patch
    return replace(known, image_size=_EVALUATED) if shrinks else known

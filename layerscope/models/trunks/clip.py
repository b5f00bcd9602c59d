"""CLIP's own image towers, a plain transformer or a ModifiedResNet, by OpenAI's names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from timm.layers import AttentionPool2d
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Rules, Weights
from layerscope.models.cuts import Stop
from layerscope.models.declared import Declared
from layerscope.models.heads import Operation, linear, matrix
from layerscope.models.trunks import build_trunk
from layerscope.models.trunks.resnet import stage_blocks
from layerscope.models.trunks.trunk import Shapes, Trunk, TrunkFacts

IGNORED = {
    r"(.*/)?((module|_orig_mod|model)\.)*"
    r"(transformer|token_embedding|positional_embedding|ln_final|text_projection|attn_mask|text|text_decoder)"
    r"(\.|$)": "the text tower's",
    r".*\blogit_(scale|bias)$": "scale or bias of the similarity of images and texts",
}
"""By a regular expression for the file's full keys: what is not the image tower's."""

TRANSFORMER = TrunkFacts(eps=1e-5)
"""What is known of CLIP's transformers whoever trained them: torch's own LayerNorm."""

_TRANSFORMER_NAMES = (
    (r"^conv1\.weight$", "patch_embed.proj.weight"),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$", r"blocks.\1.attn.qkv.\2"),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
    (r"^transformer\.resblocks\.(\d+)\.ls_([12])\.gamma$", r"blocks.\1.ls\2.gamma"),
)
_RESNET_NAMES = (
    (r"^conv(\d)\.", r"stem.conv\1.conv."),
    (r"^bn(\d)\.", r"stem.conv\1.bn."),
    *(
        (rf"^layer{stage}\.(\d+)\.{theirs}", rf"stages.{stage - 1}.\1.{timms}")
        for stage in range(1, 5)
        for theirs, timms in (
            (r"conv1\.", "conv1_1x1.conv."),
            (r"conv2\.", "conv2_kxk.conv."),
            (r"conv3\.", "conv3_1x1.conv."),
            (r"bn1\.", "conv1_1x1.bn."),
            (r"bn2\.", "conv2_kxk.bn."),
            (r"bn3\.", "conv3_1x1.bn."),
            (r"downsample\.0\.", "shortcut.conv.conv."),
            (r"downsample\.1\.", "shortcut.conv.bn."),
        )
    ),
    (r"^attnpool\.positional_embedding$", "head.pos_embed"),
    (r"^attnpool\.([qkv])_proj\.", r"head.\1."),
)
_PROJECTION = "attnpool.c_proj"
_RESNETS: dict[tuple[int, ...], str] = {
    (64, 3, 4, 6, 3): "clip-rn50",
    (64, 3, 4, 23, 3): "clip-rn101",
    (80, 4, 6, 10, 6): "clip-rn50x4",
    (96, 6, 8, 18, 8): "clip-rn50x16",
    (128, 3, 15, 36, 10): "clip-rn50x64",
}
_HEAD_WIDTH = 64
_STRIDE = 32


@dataclass(frozen=True)
class Tower:
    """An image tower: its trunk, and the projection into the space of images and texts."""

    trunk: Trunk
    tensors: Weights
    """Those that the head names."""
    head: tuple[Operation, ...]
    ignored: Mapping[str, str] = field(default_factory=dict)
    """By a regular expression for the file's full keys: why they are not needed."""


def fits(visual: Weights) -> bool:
    """Return whether the names are those of one of OpenAI's image towers."""
    resnet = visual.has(r"conv1\.weight$", r"layer1\.0\.conv1\.", r"attnpool\.q_proj\.")
    return resnet or is_transformer(visual)


def is_transformer(visual: Weights) -> bool:
    """Return whether the names are those of CLIP's transformer."""
    return visual.has(r"conv1\.weight$", r"class_embedding$", r"transformer\.resblocks\.")


def transformer(
    visual: Weights, known: TrunkFacts, declared: Declared, *, norm_after_pooling: bool = False
) -> Tower:
    """Return CLIP's transformer, its projection as the only head layer.

    Args:
        visual: Tensors of the tower, by OpenAI's names.
        known: What the family knows: heads, activation, pooling.
        declared: What the user declared.
        norm_after_pooling: Whether the last LayerNorm takes the mean of the patches, instead of
            the patches.

    Raises:
        CheckpointError: The tower has parts that a plain transformer lacks.
    """
    projection = visual.only("proj")
    named = visual.without("proj").renamed(_TRANSFORMER_NAMES)
    _refuse_strangers(visual.without("proj"), _TRANSFORMER_NAMES)
    named = named.mapped("cls_token", lambda t: t.reshape(1, 1, -1))
    named = named.mapped("pos_embed", lambda t: t.unsqueeze(0))
    if norm_after_pooling and known.pooling == "mean":
        named = named.renamed([(r"^norm\.", "fc_norm.")])
    if "norm_pre.weight" not in named and "patch_embed.proj.weight" in named:
        # timm gives patches a bias where no LayerNorm follows; CLIP does not, so it is zero.
        zeros = torch.zeros(named["patch_embed.proj.weight"].shape[0])
        named = named.with_tensor("patch_embed.proj.bias", zeros, ["patch_embed.proj.weight"])
    trunk = build_trunk(named, known, declared)
    return Tower(trunk, projection, (matrix("proj"),) if projection else ())


def modified_resnet(visual: Weights, declared: Declared, head_width: int = _HEAD_WIDTH) -> Tower:
    """Return CLIP's ResNet, its attention pooling with projection as the only head layer.

    Its representation is the mean of the last map, as of any ResNet. What the attention pooling
    makes of the map belongs to the head: the cut ``head.1`` is behind its projection.

    Args:
        visual: Tensors of the tower, by OpenAI's names.
        declared: What the user declared.
        head_width: Features of an attention head of the pooling.

    Raises:
        CheckpointError: The tower has parts that a ModifiedResNet lacks, or lacks one.
    """
    projection = visual.only(f"{_PROJECTION}.")
    own = visual.without(f"{_PROJECTION}.")
    named = own.renamed(_RESNET_NAMES)
    _refuse_strangers(own, _RESNET_NAMES)
    width, blocks = _outline(own.shapes)
    grid = _grid(own.shapes)
    features = width * _STRIDE
    if not 0 < head_width <= features or features % head_width:
        raise CheckpointError(
            f"The attention pooling cannot have heads of {head_width} features: it has {features}.",
            hint="Mend head_width in open_clip_config.json.",
        )
    side = declared.image_size or grid * _STRIDE
    if side % _STRIDE:
        raise CheckpointError(
            f"CLIP's ResNets take no images of {side} pixels.",
            hint=f"Choose a multiple of {_STRIDE}, such as --declare image_size={grid * _STRIDE}.",
        )
    notes = [
        "trunk is the mean of the last map; head.1 is the attention pooling of that map "
        "(visual.attnpool) with its projection."
    ]
    if side != grid * _STRIDE:
        notes.append(
            f"The pooling's position embeddings are interpolated from {grid}×{grid} positions, "
            f"for images of {side} pixels."
        )
    trunk = Trunk(
        module=_network(width, blocks, grid, head_width),
        weights=named,
        stops=_stops(blocks),
        name=_RESNETS.get((width, *blocks), "clip-rn-" + "-".join(map(str, blocks))),
        details={"width": width, "attention_heads": features // head_width, "image_size": side},
        notes=tuple(notes),
        image_size=side,
    )
    return Tower(trunk, projection, (linear(_PROJECTION),))


def _refuse_strangers(names: Iterable[str], rules: Rules) -> None:
    known = [re.compile(pattern) for pattern, _ in rules]
    strangers = [name for name in names if not any(pattern.search(name) for pattern in known)]
    if strangers:
        raise CheckpointError(
            f"The image tower holds {strangers[0]}, which CLIP's own towers have not.",
            hint="Attentional pooling (CoCa) and custom blocks are not supported; describe the "
            "network with --declare arch=package.module:factory.",
        )


def _outline(shapes: Shapes) -> tuple[int, tuple[int, ...]]:
    blocks = stage_blocks(shapes)
    stem = shapes.get("conv1.weight", ())
    if len(stem) != 4 or not all(blocks):
        raise CheckpointError(
            f"The image tower's stem has shape {stem}, and blocks per stage are {blocks}.",
            hint="A ModifiedResNet has conv1 to conv3 and layer1 to layer4.",
        )
    return 2 * stem[0], blocks


def _grid(shapes: Shapes) -> int:
    shape = shapes.get("attnpool.positional_embedding", ())
    side = math.isqrt(max(shape[0] - 1, 0)) if len(shape) == 2 else 0
    if not side or side**2 != shape[0] - 1:
        raise CheckpointError(
            f"attnpool.positional_embedding has shape {shape}, which is of no square map.",
            hint="The file is incomplete, or its network takes no square images.",
        )
    return side


def _network(width: int, blocks: tuple[int, ...], grid: int, head_width: int) -> nn.Module:
    plan = ByoModelCfg(
        blocks=tuple(
            ByoBlockCfg(type="bottle", d=depth, c=4 * width * 2**i, s=1 if i == 0 else 2, br=0.25)
            for i, depth in enumerate(blocks)
        ),
        stem_chs=(width // 2, width // 2, width),
        stem_type="",
        stem_pool="avg2",
        downsample="avg",
        aa_layer="avg",
        head_type="",
    )
    network: nn.Module = ByobNet(plan, num_classes=0, global_pool="")
    network.head = AttentionPool2d(
        width * _STRIDE, grid, out_features=0, head_dim=head_width, qkv_separate=True
    )
    return network


def _stops(blocks: tuple[int, ...]) -> tuple[Stop, ...]:
    return (
        Stop("stem", "stem", "trunk"),
        *(
            Stop(f"layer{stage}.{i}", f"stages.{stage - 1}.{i}", "trunk")
            for stage, depth in enumerate(blocks, start=1)
            for i in range(depth)
        ),
        Stop("trunk", "final_conv", "trunk"),
    )

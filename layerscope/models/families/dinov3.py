"""DINOv3: transformers with rotary positions, and ConvNeXts, alone or as a training's teacher."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from timm.models.eva import Eva
from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.families.dinov2 import class_token_head, split_teacher
from layerscope.models.heads import linear
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk, vit
from layerscope.models.trunks.trunk import Shapes

_NAMES = (
    (r"^storage_tokens$", "reg_token"),
    (r"^rope_embed\.periods$", "rope.periods"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_CONVNEXT_NAMES = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.dwconv\.", r"stages.\1.blocks.\2.conv_dw."),
    (r"^stages\.(\d+)\.(\d+)\.pwconv([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"^norm\.", "head.norm."),
)
_SAME_NORM = "norms."
_UNUSED = ("mask_token", "local_cls_norm.")
_EPS = 1e-5
_SIDE = 224
_BIAS = re.compile(r"(blocks\.\d+\.attn\.)qkv\.bias$")


@register
class DINOv3(Family):
    """The releases and teacher checkpoints of facebookresearch/dinov3."""

    name = "dinov3"
    title = "DINOv3"
    layout = "cls_token, storage_tokens, rope_embed., blocks. | teacher: backbone., dino_head."
    source = "facebookresearch/dinov3 models/vision_transformer.py, models/convnext.py"

    def recognise(self, contents: Contents) -> str:
        backbone, _ = split_teacher(contents)
        if backbone.has(
            r"cls_token$", r"mask_token$", r"rope_embed\.periods$", r"blocks\.0\.attn\.qkv\."
        ):
            return "a transformer with a mask token and rotary periods"
        if _is_convnext(backbone):
            return "a ConvNeXt whose last normalisation has a second name, norms.3"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        backbone, head = split_teacher(contents)
        notes = () if head else ("DINOv3's releases hold no head; its training's files do.",)
        if _is_convnext(backbone):
            named = backbone.without(_SAME_NORM).renamed(_CONVNEXT_NAMES)
            trunk = build_trunk(named, TrunkFacts(), declared)
        else:
            trunk = _transformer(backbone, declared)
        return Parts(
            trunk=trunk,
            **class_token_head(head, linear("last_layer"), declared),
            ignored={
                r".*\bmask_token$": "stands for the masked patches",
                r".*\blocal_cls_norm\.": "normalises the class tokens of small crops",
                r"(.*\.)?norms\.3\.": "a second name of the last normalisation",
                r".*\bibot_head\.": "reads masked patches, not the representation",
            },
            preprocessing=IMAGENET_BICUBIC,
            notes=(
                *notes,
                "The weights from satellite images have a mean and standard deviation of their "
                "own, which the file does not tell; a card states them.",
            ),
        )


def _is_convnext(backbone: Weights) -> bool:
    return backbone.has(r"downsample_layers\.0\.", r"stages\.0\.0\.dwconv\.", r"norms\.3\.")


def _transformer(backbone: Weights, declared: Declared) -> Trunk:
    weights = _with_split_biases(backbone.without(*_UNUSED).renamed(_NAMES))
    shapes = weights.shapes
    gated = "blocks.0.mlp.fc1_g.weight" in shapes
    plan = replace(vit.outline(shapes, "fc1_g" if gated else "fc1"), gated=gated)
    heads = _attention_heads(shapes, plan.width, declared)
    side = vit.divisible(declared.image_size or _SIDE, plan.patch)
    return Trunk(
        module=_network(shapes, plan, heads, side),
        weights=weights,
        stops=vit.stops(plan, "cls"),
        name=plan.name,
        details={**plan.details(heads, "gelu"), "positions": "rotary"},
        notes=(
            "trunk is its class token after the final LayerNorm; blocks.* are taken before it.",
            f"Its {plan.registers} registers are left out of the mean of the patches.",
        ),
    )


def _network(shapes: Shapes, plan: vit.ViTOutline, heads: int, side: int) -> Eva:
    network = Eva(
        img_size=side,
        patch_size=plan.patch,
        num_classes=0,
        global_pool="token",
        embed_dim=plan.width,
        depth=plan.depth,
        num_heads=heads,
        qkv_bias="blocks.0.attn.q_bias" in shapes,
        # timm truncates the product, which half a unit protects from rounding.
        mlp_ratio=(plan.hidden + 0.5) / plan.width,
        swiglu_mlp=plan.gated,
        swiglu_align_to=int(plan.gated),
        norm_layer=partial(nn.LayerNorm, eps=_EPS),
        init_values=1.0 if "blocks.0.gamma_1" in shapes else None,
        num_reg_tokens=plan.registers,
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type="dinov3",
        rope_rotate_half=True,
        use_fc_norm=False,
        dynamic_img_size=True,
    )
    # The file's own periods and masked biases, which timm computes, or takes to be zero.
    for module in network.modules():
        for name in ("periods", "k_bias"):
            buffer = getattr(module, name, None)
            if buffer is not None:
                module.register_buffer(name, buffer, persistent=True)
    return network


def _attention_heads(shapes: Shapes, width: int, declared: Declared) -> int:
    # A head has one period for every four of its features: sine and cosine of two coordinates.
    head_width = 4 * vit.shape_of(shapes, "rope.periods", 1)[0]
    heads = width // head_width
    if heads * head_width != width or declared.attention_heads not in (None, heads):
        raise CheckpointError(
            f"The rotary periods tell attention heads of {head_width} features, of which {width} "
            f"features make {heads}, not {declared.attention_heads or 'a whole number'}.",
            hint="Declare no attention_heads.",
        )
    return heads


def _with_split_biases(weights: Weights) -> Weights:
    """Return the weights with timm's three biases for the one that the file masks in part."""
    masked = any(name.endswith(".bias_mask") for name in weights)
    for name in list(weights):
        match = _BIAS.match(name)
        if not match:
            continue
        bias, origins = weights[name].float(), [name]
        if masked:
            origins.append(f"{name}_mask")
            bias = bias * _mask(weights, origins[1], bias)
        for part, third in zip("qkv", bias.chunk(3), strict=False):
            weights = weights.with_tensor(f"{match[1]}{part}_bias", third, origins)
        weights = weights.without(*origins)
    return weights


def _mask(weights: Weights, name: str, bias: Tensor) -> Tensor:
    mask = weights.get(name)
    if mask is None or mask.shape != bias.shape:
        raise CheckpointError(
            f"{name} is missing, or of another shape than its bias.", hint="The file is incomplete."
        )
    return mask.float()

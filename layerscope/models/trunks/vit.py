"""Plain vision transformers by timm's class, told from the names and shapes of a state dict."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from timm.layers import SwiGLUPacked, resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Weights
from layerscope.models.cuts import Stop
from layerscope.models.heads import ACTIVATIONS
from layerscope.models.trunks.trunk import Shapes, Trunk, TrunkFacts
from layerscope.types import Pooling

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_PLAIN = re.compile(
    r"(cls_token|pos_embed|reg_token|patch_embed\.proj\.(weight|bias)"
    r"|(norm|norm_pre|fc_norm)\.(weight|bias)"
    r"|blocks\.\d+\.((norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
    r"|attn\.[qk]_norm\.(weight|bias)|ls[12]\.gamma))$"
)
_HEAD_WIDTH = 64
_NAMES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1408: "giant"}
_FC2 = "blocks.0.mlp.fc2.weight"
_Q_NORM = "blocks.0.attn.q_norm.weight"


def fits(shapes: Shapes) -> bool:
    """Return whether every name is one that timm's plain ``VisionTransformer`` has."""
    return "blocks.0.attn.qkv.weight" in shapes and all(map(_PLAIN.match, shapes))


@dataclass(frozen=True, slots=True)
class ViTOutline:
    """What of a transformer's structure the shapes of its weights tell."""

    width: int
    patch: int
    depth: int
    hidden: int
    """Outputs of a block's first Linear; of a gated MLP, those of both halves."""
    gated: bool
    classes: int
    """1 with a class token, 0 without."""
    registers: int

    @property
    def prefix(self) -> int:
        """How many leading tokens are no patches."""
        return self.classes + self.registers

    def details(self, heads: int, activation: str | None) -> dict[str, Any]:
        """Return what is to be recorded of a trunk of this structure.

        Args:
            heads: Attention heads.
            activation: The activation of a block's MLP where it is not gated.
        """
        return {
            "depth": self.depth,
            "width": self.width,
            "patch": self.patch,
            "attention_heads": heads,
            "activation": "swiglu" if self.gated else activation,
            "registers": self.registers,
        }

    @property
    def name(self) -> str:
        """The usual name, such as ``vit-small/16``, or the width where it has none."""
        return f"vit-{_NAMES.get(self.width, self.width)}/{self.patch}"


def outline(shapes: Shapes, first: str = "fc1") -> ViTOutline:
    """Return the structure that a timm-style state dict describes.

    Args:
        shapes: Shape of every tensor, by timm's key (``blocks.0.attn.qkv.weight``).
        first: What the first Linear of a block's MLP is called.

    Raises:
        CheckpointError: A tensor is missing or misshapen, or the patches are not square or not of
            three channels.
    """
    width, channels, patch, across = shape_of(shapes, "patch_embed.proj.weight", 4)
    if channels != 3 or patch != across:
        raise CheckpointError(
            f"The patches have {channels} channels and are {patch}×{across} pixels large.",
            hint="Only square patches of three channels are supported; see --declare arch.",
        )
    hidden = shape_of(shapes, f"blocks.0.mlp.{first}.weight", 2)[0]
    return ViTOutline(
        width=width,
        patch=patch,
        depth=_depth(shapes),
        hidden=hidden,
        gated=hidden == 2 * shape_of(shapes, _FC2, 2)[1],
        classes=_tokens(shapes, "cls_token", width),
        registers=_tokens(shapes, "reg_token", width),
    )


def _depth(shapes: Shapes) -> int:
    found = {int(match[1]) for match in map(_BLOCK.match, shapes) if match}
    # A name may claim any number: what is counted is what the file holds.
    missing = next((number for number in range(len(found)) if number not in found), None)
    if missing is not None:
        raise CheckpointError(
            f"The transformer lacks block {missing} of {max(found) + 1}.",
            hint="The file is incomplete.",
        )
    return len(found)


def build(tensors: Weights, known: TrunkFacts) -> Trunk:
    """Return the transformer whose tensors these are, by timm's keys and without a classifier.

    Depth, widths, patch, grid, class token, registers, layer scale, normalisations and the gated
    MLP are read off the shapes. The number of attention heads, the activation and the LayerNorm's
    epsilon leave no trace in a state dict: they are the family's, or the user's.

    Raises:
        CheckpointError: The shapes are not those of a plain transformer, or the number of heads
            or the activation has to be declared.
    """
    plan = outline(tensors.shapes)
    heads = _attention_heads(tensors.shapes, plan.width, known)
    tensors, grid, side = _with_positions(tensors, plan, known)
    shapes = tensors.shapes
    # A LayerNorm behind the pooling is what timm and MAE train with the mean of the patches.
    reads_class = "cls_token" in shapes and "fc_norm.weight" not in shapes
    pooling: Pooling = known.pooling or ("cls" if reads_class else "mean")
    module = _transformer(shapes, plan, side, heads, pooling, known)
    return Trunk(
        module=module,
        weights=tensors,
        stops=stops(plan, pooling, "fc_norm" if "fc_norm.weight" in shapes else "norm"),
        name=plan.name,
        details={**plan.details(heads, known.trunk_act), "image_size": side},
        notes=_notes(shapes, plan, pooling, grid, side),
        image_size=side,
    )


def _transformer(
    shapes: Shapes, plan: ViTOutline, side: int, heads: int, pooling: str, known: TrunkFacts
) -> VisionTransformer:
    patches = (side // plan.patch) ** 2
    with torch.device("meta"):  # initialising what a file fills anyway takes seconds
        network = VisionTransformer(
            img_size=side,
            patch_size=plan.patch,
            num_classes=0,
            global_pool="avg" if pooling == "mean" else "token",
            embed_dim=plan.width,
            depth=plan.depth,
            num_heads=heads,
            # timm truncates the product, which half a unit protects from rounding.
            mlp_ratio=(plan.hidden + 0.5) / plan.width,
            qkv_bias="blocks.0.attn.qkv.bias" in shapes,
            proj_bias="blocks.0.attn.proj.bias" in shapes,
            qk_norm=_Q_NORM in shapes,
            init_values=1.0 if "blocks.0.ls1.gamma" in shapes else None,
            class_token=bool(plan.classes),
            no_embed_class="pos_embed" in shapes and shapes["pos_embed"][1] == patches,
            pos_embed="learn" if "pos_embed" in shapes else "none",
            reg_tokens=plan.registers,
            pre_norm="norm_pre.weight" in shapes,
            final_norm="norm.weight" in shapes or "fc_norm.weight" in shapes,
            fc_norm="fc_norm.weight" in shapes,
            norm_layer=partial(nn.LayerNorm, eps=known.eps),
            weight_init="skip",
            **_mlp(plan, known),
        )
    return network.to_empty(device="cpu")


def _mlp(plan: ViTOutline, known: TrunkFacts) -> dict[str, Any]:
    if plan.gated:
        return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    if known.trunk_act is None:
        raise CheckpointError(
            "The file does not say which activation its transformer blocks have.",
            hint="Write --declare trunk_act=gelu, or trunk_act=quick_gelu, or in a card.",
        )
    linear = known.trunk_act == "none"
    return {"act_layer": nn.Identity if linear else ACTIVATIONS[known.trunk_act]}


def _with_positions(
    tensors: Weights, plan: ViTOutline, known: TrunkFacts
) -> tuple[Weights, int, int]:
    """Return the tensors with position embeddings for the wanted side, the old grid, the side."""
    if "pos_embed" not in tensors:
        if known.image_size is None:
            raise CheckpointError(
                "The transformer has no position embedding, so its image size is unknown.",
                hint="Write --declare image_size=224.",
            )
        side = divisible(known.image_size, plan.patch)
        return tensors, side // plan.patch, side
    leading, grid = _grid(_tokens(tensors.shapes, "pos_embed", plan.width), plan)
    if plan.registers and leading == plan.classes == 1:
        tensors, leading = _with_class_position(tensors), 0
    side = divisible(known.image_size or grid * plan.patch, plan.patch)
    if side // plan.patch == grid:
        return tensors, grid, side
    new = _resample(tensors["pos_embed"], leading, grid, side // plan.patch, known)
    return tensors.with_tensor("pos_embed", new, ["pos_embed"]), grid, side


def _grid(length: int, plan: ViTOutline) -> tuple[int, int]:
    """Return how many positions are no patches', and the side of the square of the others."""
    possible = dict.fromkeys((plan.classes, 0, plan.prefix))
    found = [(n, math.isqrt(length - n)) for n in possible if length > n]
    squares = [(n, side) for n, side in found if side**2 == length - n]
    if len(squares) != 1:
        fitting = "several squares" if squares else "no square"
        raise CheckpointError(
            f"The position embedding covers {length} tokens, in which {fitting} of patches "
            f"and {plan.prefix} other tokens can be meant.",
            hint="Only square images are supported; describe the network with --declare arch.",
        )
    return squares[0]


def _with_class_position(tensors: Weights) -> Weights:
    """Add the class token's position to the class token, where registers have none of their own."""
    positions = tensors["pos_embed"]
    class_token = tensors["cls_token"] + positions[:, :1]
    tensors = tensors.with_tensor("cls_token", class_token, ["cls_token", "pos_embed"])
    return tensors.with_tensor("pos_embed", positions[:, 1:], ["pos_embed"])


def divisible(side: int, patch: int) -> int:
    """Return the side of images, which has to be a multiple of the patch's.

    Raises:
        CheckpointError: It is not.
    """
    if side % patch:
        raise CheckpointError(
            f"Images of {side} pixels do not divide into patches of {patch}.",
            hint=f"Choose a multiple: --declare image_size={max(side // patch, 1) * patch}.",
        )
    return side


def _resample(positions: Tensor, leading: int, grid: int, new: int, known: TrunkFacts) -> Tensor:
    if known.resample is None:
        resampled: Tensor = resample_abs_pos_embed(
            positions.float(), [new, new], [grid, grid], num_prefix_tokens=leading
        )
        return resampled
    patches = positions[:, leading:].float().reshape(1, grid, grid, -1)
    moved = known.resample(patches, new).reshape(1, new * new, -1)
    return torch.cat([positions[:, :leading].float(), moved], dim=1)


def _attention_heads(shapes: Shapes, width: int, known: TrunkFacts) -> int:
    # Queries are normalised over the width of one head.
    told = width // shape_of(shapes, _Q_NORM, 1)[0] if _Q_NORM in shapes else None
    number = _heads_of_facts(width, known)
    if told and isinstance(known.attention_heads, int) and told != number:
        raise CheckpointError(
            f"The normalisation of the queries tells {told} attention heads, not {number}.",
            hint="Declare no attention_heads.",
        )
    number = told or number
    if not number or number < 0 or width % number:
        raise CheckpointError(
            f"The weights do not tell how many attention heads share {width} features"
            + (f"; it cannot be {number}." if number else "."),
            hint="Write --declare attention_heads=N, or attention_heads in a card.",
        )
    return number


def _heads_of_facts(width: int, known: TrunkFacts) -> int | None:
    heads = known.attention_heads
    if heads is None:
        return None if width % _HEAD_WIDTH else width // _HEAD_WIDTH
    return heads if isinstance(heads, int) else heads.get(width)


def _tokens(shapes: Shapes, name: str, width: int) -> int:
    """Return how many tokens a parameter holds; 0 where there is none."""
    if name not in shapes:
        return 0
    batch, number, features = shape_of(shapes, name, 3)
    if batch != 1 or features != width:
        raise CheckpointError(
            f"{name} has shape {shapes[name]} where tokens have {width} features.",
            hint="The weights are not those of a plain vision transformer.",
        )
    return number


def shape_of(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    """Return the shape of a tensor that has to be there, with so many dimensions.

    Raises:
        CheckpointError: It is missing, empty or misshapen.
    """
    shape = shapes.get(name, ())
    if len(shape) != dimensions or 0 in shape:
        found = f"has shape {shape}" if name in shapes else "is missing"
        raise CheckpointError(
            f"{name} {found}.", hint="The weights are not those of a plain vision transformer."
        )
    return shape


def _notes(shapes: Shapes, plan: ViTOutline, pooling: str, grid: int, side: int) -> tuple[str, ...]:
    notes = [_final_norm(shapes, pooling)]
    if side != grid * plan.patch:
        notes.append(
            f"The position embeddings are interpolated from {grid}×{grid} patches to "
            f"{side // plan.patch}×{side // plan.patch}, for images of {side} pixels."
        )
    if plan.registers:
        notes.append(f"Its {plan.registers} registers are left out of the mean of the patches.")
    return tuple(notes)


def _final_norm(shapes: Shapes, pooling: str) -> str:
    pooled = "the mean of its patches" if pooling == "mean" else "its class token"
    if "fc_norm.weight" in shapes:
        return f"trunk is {pooled}, then the LayerNorm; blocks.* are taken before it."
    if "norm.weight" not in shapes:
        return f"The transformer has no final LayerNorm: trunk is {pooled} of the last block."
    return f"trunk is {pooled} after the final LayerNorm; blocks.* are taken before it."


def stops(plan: ViTOutline, pooling: Pooling, last: str = "norm") -> tuple[Stop, ...]:
    """Return the canonical stops of a transformer: tokens going in, every block, the end.

    The output of the last module is the representation: ``fc_norm`` is behind the pooling.
    """
    tokens = Stop("", "", "trunk", plan.prefix, class_token=bool(plan.classes), pooling=pooling)
    # The class token is the same for every image until the first block has mixed the patches in.
    embed = replace(tokens, name="embed", module="norm_pre", pooling="mean", class_token=False)
    blocks = [f"blocks.{i}" for i in range(plan.depth)]
    return (
        embed,
        *(replace(tokens, name=name, module=name) for name in blocks),
        replace(tokens, name="trunk", module=last),
    )

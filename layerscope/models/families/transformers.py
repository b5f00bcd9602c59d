"""Hugging Face transformers: ViT, ViT-MAE, DINOv2 and CLIP, with the settings beside the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, act, linear
from layerscope.models.image_processors import PREPROCESSOR, preprocessing_of, processor_beside
from layerscope.models.preprocessing import CLIP, IMAGENET_BICUBIC
from layerscope.models.trunks import TrunkFacts, build_trunk
from layerscope.models.trunks.positions import bicubic
from layerscope.types import Preprocessing

_CONFIG = "config.json"

_HALVES = replace(
    IMAGENET_BICUBIC,
    resize=(224, 224),
    crop=None,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bilinear",
)
_ATTENTION_HEADS = {
    **{width: width // 64 for width in (192, 384, 512, 768, 896, 1024, 1536)},
    **{1280: 16, 1408: 16, 1664: 16},
}
"""By width, of every published network of these four kinds."""
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


@dataclass(frozen=True)
class ViTKind:
    """One of the architectures, and what is usual for it where nothing lies beside the file."""

    title: str
    model_types: tuple[str, ...]
    """What its ``config.json`` may call it."""
    known: TrunkFacts
    preprocessing: Preprocessing
    hidden_act: str = "gelu"
    """The default of its configuration class, which a file leaves out."""
    resizes: bool = False
    """Whether it interpolates its position embeddings to the size of the images by itself."""


_PLAIN = TrunkFacts(attention_heads=_ATTENTION_HEADS, resample=bicubic())
_VIT = ViTKind("ViT", ("vit", "vit_msn"), replace(_PLAIN, eps=1e-12), _HALVES)
_MAE = ViTKind("ViT-MAE", ("vit_mae",), replace(_PLAIN, eps=1e-12), IMAGENET_BICUBIC)
_DINOV2 = ViTKind("DINOv2", ("dinov2",), _PLAIN, IMAGENET_BICUBIC, resizes=True)
_DINOV2_REGISTERS = ViTKind(
    "DINOv2 with registers",
    ("dinov2_with_registers",),
    replace(_PLAIN, resample=bicubic(antialias=True)),
    IMAGENET_BICUBIC,
    resizes=True,
)
_CLIP = ViTKind(
    "CLIP",
    ("clip", "clip_vision_model"),
    replace(_PLAIN, trunk_act=None, eps=1e-5),
    CLIP,
    hidden_act="quick_gelu",
)
_USUAL_HEADS = 12
"""What all their configuration classes have by default."""

_PREFIX = re.compile(
    r"((?:vit|dinov2|dinov2_with_registers|clip|vision_model|clip\.vision_model)\.)?embeddings\."
)
_BLOCKS = r"^(?:encoder\.)?layers?\.(\d+)\."
_NAMES = (
    (r"^embeddings\.(?:cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.(?:position_embeddings|position_embedding\.weight)$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (_BLOCKS + r"(?:layernorm_before|norm1|layer_norm1)\.", r"blocks.\1.norm1."),
    (_BLOCKS + r"(?:layernorm_after|norm2|layer_norm2)\.", r"blocks.\1.norm2."),
    (_BLOCKS + r"layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (_BLOCKS + r"attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (_BLOCKS + r"(?:attention|self_attn)\.q_proj\.", r"blocks.\1.attn.query."),
    (_BLOCKS + r"(?:attention|self_attn)\.k_proj\.", r"blocks.\1.attn.key."),
    (_BLOCKS + r"(?:attention|self_attn)\.v_proj\.", r"blocks.\1.attn.value."),
    (
        _BLOCKS + r"(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.",
        r"blocks.\1.attn.proj.",
    ),
    (_BLOCKS + r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.", r"blocks.\1.mlp.fc1."),
    (
        _BLOCKS + r"(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.",
        r"blocks.\1.mlp.fc2.",
    ),
    (_BLOCKS + r"mlp\.(gate|up)_proj\.", r"blocks.\1.mlp.\2."),
)
_UNNEEDED = ("embeddings.mask_token", "embeddings.position_ids")
_MERGED = {
    "attn.qkv": ("attn.query", "attn.key", "attn.value"),
    "mlp.fc1": ("mlp.gate", "mlp.up"),
}
"""By timm's name in a block: the tensors that it holds one under the other."""

_IGNORED = {
    r".*\bmask_token$": "stands for masked patches",
    r".*\bposition_ids$": "a counter",
    r".*\bdecoder\.": "the decoder, which reads tokens, not the representation",
    r"(.*/)?((module|model|clip)\.)*(text_model|text_projection)\.": "the text tower's",
    r".*\blogit_scale$": "scale of the similarity of images and texts",
}


@register
class Transformers(Family):
    """What ``save_pretrained`` of transformers writes, and its networks' own state dicts."""

    name = "transformers"
    title = "Hugging Face transformers (ViT, ViT-MAE, DINOv2, CLIP)"
    layout = (
        "bare: (vit., dinov2., vision_model.)embeddings., encoder.layer. or layers., layernorm."
    )
    source = "huggingface/transformers src/transformers/models/{vit,vit_mae,dinov2,clip}"

    def recognise(self, contents: Contents) -> str:
        kind = _kind(contents)
        return f"embeddings and layers by the names of transformers' {kind.title}" if kind else ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights, kind = contents.state_dict, _kind(contents)
        if kind is None:
            raise CheckpointError(
                f"{contents.title} is of no known vision transformer of transformers.",
                hint=f"Expected {self.layout}.",
            )
        prefix = _prefix(weights)
        preprocessing, notes = _preprocessing(contents, kind)
        known = _facts(contents, kind)
        if kind.resizes:
            known = replace(known, image_size=_side(preprocessing))
        behind = _behind(contents, prefix, kind)
        keys = [step.key for step in (*behind.head, *behind.pooler) if step.key]
        return Parts(
            trunk=build_trunk(_by_timms_names(_own(weights, prefix)), known, declared),
            tensors=weights.only(*(f"{key}." for key in keys)),
            head=behind.head,
            logits={"pooler": behind.pooler} if behind.pooler else {},
            ignored={**_IGNORED, **behind.ignored},
            preprocessing=preprocessing,
            notes=(*notes, *behind.notes),
        )


def _prefix(weights: Weights) -> str:
    """Return what the names of the image tower begin with."""
    found = (_PREFIX.match(name) for name in weights)
    return next((match[1] or "" for match in found if match), "")


def _kind(contents: Contents) -> ViTKind | None:
    weights = contents.state_dict
    tower = weights.under(_prefix(weights))
    if tower.has(r"embeddings\.class_embedding$", r"pre_layrnorm\.", r"encoder\.layers\.0\."):
        return _CLIP
    if not tower.has(
        r"embeddings\.cls_token$",
        r"embeddings\.position_embeddings$",
        r"embeddings\.patch_embeddings\.projection\.",
    ):
        return None
    if tower.has(_BLOCKS.replace(r"(\d+)", "0") + r"layer_scale1\.", r"layernorm\."):
        return _DINOV2_REGISTERS if tower.has(r"embeddings\.register_tokens$") else _DINOV2
    if not tower.has(_BLOCKS.replace(r"(\d+)", "0") + r"layernorm_before\.", r"layernorm\."):
        return None
    masked = weights.has(r"decoder\.decoder_embed\.")
    # An encoder alone has ViT's very keys.
    model_type = contents.beside.get(_CONFIG, {}).get("model_type", "")
    return _MAE if masked or model_type == "vit_mae" else _VIT


def _own(weights: Weights, prefix: str) -> Weights:
    """Return the tensors of the trunk, as a network without anything behind it names them."""
    tower = weights.under(prefix)
    return tower.only("embeddings.", "pre_layrnorm.", "encoder.", "layers.", "layernorm.").joined(
        tower.only("post_layernorm.")
    )


def _by_timms_names(own: Weights) -> Weights:
    """Return the tensors by timm's names and in timm's shapes."""
    known = [re.compile(pattern) for pattern, _ in _NAMES]
    own = own.without(*_UNNEEDED)
    for name in own:
        if not any(pattern.search(name) for pattern in known):
            raise CheckpointError(
                f"The transformer holds {name}, which is no part of the supported ones.",
                hint="Describe the network with --declare arch=package.module:factory.",
            )
    tensors = own.renamed(_NAMES)
    tensors = tensors.mapped("cls_token", lambda t: t.reshape(1, 1, -1))
    tensors = tensors.mapped("pos_embed", lambda t: t if t.dim() == 3 else t.unsqueeze(0))
    blocks = sorted({match[1] for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))})
    for block in blocks:
        for whole, parts in _MERGED.items():
            for kind in ("weight", "bias"):
                names = [f"blocks.{block}.{part}.{kind}" for part in parts]
                tensors = _merged(tensors, f"blocks.{block}.{whole}.{kind}", names)
    return tensors


def _merged(tensors: Weights, whole: str, names: Sequence[str]) -> Weights:
    """Return the tensors with several of one shape stacked into one."""
    there = [name for name in names if name in tensors]
    if not there:
        return tensors
    shapes = {tensors.shapes[name] for name in there}
    if len(there) < len(names) or len(shapes) > 1 or () in shapes:
        raise CheckpointError(
            f"Of {', '.join(names)} the file holds {', '.join(there)}, of shapes "
            f"{', '.join(map(str, sorted(shapes)))}.",
            hint="All of them are needed, in one shape; the file is incomplete.",
        )
    stacked = torch.cat([tensors[name] for name in names])
    return tensors.with_tensor(whole, stacked, names).without(*names)


def _facts(contents: Contents, kind: ViTKind) -> TrunkFacts:
    """Return what is known of the trunk: from the configuration beside it, or from its kind."""
    config = _config(contents, kind)
    if config is None:
        return kind.known
    heads = config.get("num_attention_heads", _USUAL_HEADS)
    eps = config.get("layer_norm_eps", kind.known.eps)
    name = str(config.get("hidden_act", kind.hidden_act))
    if name not in _ACTIVATIONS:
        raise CheckpointError(
            f"{_CONFIG} asks for the activation {name!r}.",
            hint=f"Supported: {', '.join(_ACTIVATIONS)}.",
        )
    if type(heads) is not int or type(eps) not in (int, float) or heads < 1:
        raise CheckpointError(
            f"{_CONFIG} gives {heads!r} attention heads and the layer_norm_eps {eps!r}.",
            hint="Mend it, or take it away and declare attention_heads.",
        )
    return replace(kind.known, attention_heads=heads, trunk_act=_ACTIVATIONS[name], eps=float(eps))


def _config(contents: Contents, kind: ViTKind) -> Mapping[str, Any] | None:
    """Return the configuration of the image tower; None where none lies beside the file."""
    config = contents.beside.get(_CONFIG)
    if config is None:
        return None
    model_type = config.get("model_type")
    if model_type not in kind.model_types:
        raise CheckpointError(
            f"The {_CONFIG} beside the file is of a {model_type!r}, and the tensors are those of "
            f"transformers' {kind.title}.",
            hint=f"Take it away, or put the file's own beside it ({', '.join(kind.model_types)}).",
        )
    vision = config.get("vision_config", {}) if model_type == "clip" else config
    if not isinstance(vision, Mapping):
        raise CheckpointError(
            f"The {_CONFIG} beside the file has the vision_config {vision!r}.",
            hint="Mend it, or take it away.",
        )
    return vision


@dataclass(frozen=True)
class _Behind:
    """What a file holds behind the trunk."""

    head: tuple[Operation, ...] = ()
    pooler: tuple[Operation, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _behind(contents: Contents, prefix: str, kind: ViTKind) -> _Behind:
    weights = contents.state_dict
    if kind is _CLIP:
        return _behind_clip(weights)
    if kind in (_DINOV2, _DINOV2_REGISTERS):
        reason = "a classifier of the class token and the mean of the patches; not rebuilt"
        return _Behind(ignored={r".*\bclassifier\.": reason})
    if weights.has(r"classifier\.weight$"):
        return _Behind(head=(linear("classifier"),))
    key = f"{prefix}pooler.dense"
    if f"{key}.weight" not in weights:
        return _Behind()
    name = str((_config(contents, kind) or {}).get("pooler_act", "tanh"))
    if name not in _ACTIVATIONS:
        raise CheckpointError(
            f"{_CONFIG} asks for the pooler_act {name!r}.",
            hint=f"Supported: {', '.join(_ACTIVATIONS)}.",
        )
    note = (
        "transformers adds a pooler of random weights to networks that were trained without one; "
        "it is offered as the cut pooler, off by default."
    )
    return _Behind(pooler=(linear(key), act(_ACTIVATIONS[name])), notes=(note,))


def _behind_clip(weights: Weights) -> _Behind:
    reason = "a classifier of the mean of the patches; not rebuilt"
    ignored = {r".*\bclassifier\.": reason}
    if weights.has(r"visual_projection\.weight$"):
        return _Behind((linear("visual_projection"),), ignored=ignored)
    note = "The file holds no visual_projection, so the cuts end with the trunk."
    return _Behind(ignored=ignored, notes=(note,))


def _preprocessing(contents: Contents, kind: ViTKind) -> tuple[Preprocessing, tuple[str, ...]]:
    settings = processor_beside(contents)
    if settings is not None:
        return preprocessing_of(settings, kind.preprocessing), ()
    other = " (DINO's networks in this layout have ImageNet's)" if kind is _VIT else ""
    mean = ", ".join(f"{value:g}" for value in kind.preprocessing.mean)
    note = (
        f"No {PREPROCESSOR} lies beside the file: the usual preprocessing of transformers' "
        f"{kind.title} is assumed, with the mean {mean}{other}."
    )
    return kind.preprocessing, (note,)


def _side(preprocessing: Preprocessing) -> int | None:
    size = preprocessing.crop or preprocessing.resize
    return max(size) if isinstance(size, tuple) else size

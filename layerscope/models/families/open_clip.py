"""OpenCLIP: the same towers as OpenAI's, or trunks of timm, told by keys and open_clip_config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, act, linear
from layerscope.models.preprocessing import CLIP
from layerscope.models.trunks import TrunkFacts, build_trunk, clip, vit, zoo
from layerscope.models.trunks.architectures import Architecture, by_name
from layerscope.models.trunks.clip import Tower
from layerscope.types import Pooling, Preprocessing

_CONFIG = "open_clip_config.json"
_SETTINGS = ("input_resolution", "context_length", "vocab_size")
_ATTENTION_HEADS = {
    **{width: width // 64 for width in (192, 384, 512, 768, 896, 1024)},
    **{1280: 16, 1408: 16, 1664: 16, 1792: 16},
}
"""By width, in every configuration that OpenCLIP ships and in timm's trunks alike."""
_CLIP_ALIKE = replace(clip.TRANSFORMER, trunk_act=None, attention_heads=_ATTENTION_HEADS)
_POOLINGS: dict[str, Pooling] = {"tok": "cls", "avg": "mean"}
_UNSUPPORTED = ("attentional_pool", "qk_norm", "scaled_cosine_attn", "scale_heads", "act_kwargs")


@register
class OpenClip(Family):
    """The checkpoints of mlfoundations/open_clip, from a training run or a model hub."""

    name = "open-clip"
    title = "OpenCLIP"
    layout = "state_dict or bare: (module.)visual., or visual.trunk. and visual.head."
    source = "mlfoundations/open_clip src/open_clip/model.py, timm_model.py, factory.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if weights.has(r"visual\.trunk\."):
            return "visual.trunk"
        if all(setting in weights for setting in _SETTINGS):
            return ""
        if clip.fits(weights.under("visual.")):
            return "visual in the names of CLIP, without the settings of OpenAI's archives"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        visual, model = contents.state_dict.under("visual."), _model(contents)
        if visual.has(r"trunk\."):
            tower = _timm_tower(visual, model, declared)
        elif clip.is_transformer(visual):
            tower = _transformer(visual, model, declared)
        else:
            width = _number(_vision(model), "head_width", 64)
            tower = clip.modified_resnet(visual, declared, width)
        return Parts(
            trunk=tower.trunk,
            tensors=tower.tensors,
            head=tower.head,
            ignored={**clip.IGNORED, **tower.ignored},
            preprocessing=_preprocessing(contents, model),
            notes=_notes(model, tower),
        )


def _transformer(visual: Weights, model: Mapping[str, Any], declared: Declared) -> Tower:
    if not model:
        return _undescribed(visual, declared)
    vision = _vision(model)
    for setting in _UNSUPPORTED:
        if vision.get(setting):
            raise CheckpointError(
                f"{_CONFIG} asks for {setting}, which is not supported.",
                hint="Describe the network with --declare arch=package.module:factory.",
            )
    pooling = _POOLINGS.get(str(vision.get("pool_type", "tok")))
    if pooling is None:
        raise CheckpointError(
            f"{_CONFIG} asks for pool_type {vision['pool_type']!r}.",
            hint=f"Supported: {', '.join(_POOLINGS)}.",
        )
    known = TrunkFacts(
        attention_heads=_width(visual) // _number(vision, "head_width", 64),
        trunk_act="quick_gelu" if model.get("quick_gelu") else "gelu",
        eps=_eps(vision),
        pooling=pooling,
    )
    after = bool(vision.get("final_ln_after_pool"))
    return clip.transformer(visual, known, declared, norm_after_pooling=after)


def _undescribed(visual: Weights, declared: Declared) -> Tower:
    """Return a transformer beside which no configuration lies."""
    if "ln_pre.weight" not in visual:
        raise CheckpointError(
            "The file does not say how its transformer, which has no ln_pre, pools its patches.",
            hint=f"Put its {_CONFIG} beside the file.",
        )
    return clip.transformer(visual, _CLIP_ALIKE, declared)


def _width(visual: Weights) -> int:
    shape = visual.shapes["conv1.weight"]
    return shape[0] if shape else 0


def _eps(vision: Mapping[str, Any]) -> float:
    settings = vision.get("norm_kwargs") or {}
    if not isinstance(settings, Mapping) or set(settings) - {"eps"}:
        raise CheckpointError(
            f"{_CONFIG} asks for norm_kwargs {settings!r}.", hint="Only eps is supported."
        )
    return float(settings.get("eps", clip.TRANSFORMER.eps))


def _timm_tower(visual: Weights, model: Mapping[str, Any], declared: Declared) -> Tower:
    trunk, vision = visual.under("trunk."), _vision(model)
    projection, steps = visual.only("head."), _projection(visual)
    name = vision.get("timm_model_name")
    classifier = trunk.only("head.")
    plain = trunk.without("head.")
    if name is None and vit.fits(plain.shapes):
        # timm's own classifier is what OpenCLIP calls the projection where it adds none.
        own = (linear("trunk.head"),) if classifier else ()
        tensors = projection.joined(visual.only("trunk.head."))
        # All of timm's transformers with a LayerNorm before the blocks are CLIP's.
        usual = TrunkFacts(attention_heads=_ATTENTION_HEADS)
        known = _CLIP_ALIKE if "norm_pre.weight" in plain else usual
        return Tower(build_trunk(plain, known, declared), tensors, (*own, *steps))
    named = None if name is None else _named_architecture(str(name), vision, vit.fits(plain.shapes))
    network = zoo.find_network(trunk, declared, named=named)
    return Tower(
        network.trunk,
        network.classifier.joined(projection),
        (*network.head, *steps),
        network.ignored,
    )


def _projection(visual: Weights) -> tuple[Operation, ...]:
    if visual.has(r"head\.proj\.weight$"):
        return (linear("head.proj"),)
    if visual.has(r"head\.mlp\.fc1\.weight$"):
        return (linear("head.mlp.fc1"), act("gelu"), linear("head.mlp.fc2"))
    return ()


def _named_architecture(name: str, vision: Mapping[str, Any], plain: bool) -> Architecture:
    """Return the architecture of timm that the configuration names, pooled as it says."""
    architecture = by_name("timm", name)
    asked = str(vision.get("timm_pool", "avg") or "")
    if vision.get("timm_proj", "linear") in ("linear", "mlp"):
        with torch.device("meta"):
            usual = getattr(architecture.create(), "global_pool", None)
        usual = usual if isinstance(usual, str) else "avg"
        if asked in ("", usual):
            return architecture
        if plain and asked in ("avg", "token"):
            # OpenCLIP changes the pooling of a network that has its last LayerNorm before it.
            return replace(architecture, settings={"global_pool": asked, "fc_norm": False})
    elif asked in ("avg", "token", "map"):
        return replace(architecture, settings={"global_pool": asked})
    raise CheckpointError(
        f"{_CONFIG} asks for timm_pool {asked!r} of {architecture.title}.",
        hint="Describe the network with --declare arch=package.module:factory.",
    )


def _model(contents: Contents) -> Mapping[str, Any]:
    """Return the configuration of the network, or an empty one where none lies beside the file."""
    config = contents.beside.get(_CONFIG)
    if config is None:
        return {}
    model = config.get("model_cfg", config) if isinstance(config, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(model.get("vision_cfg"), Mapping):
        raise CheckpointError(
            f"The {_CONFIG} beside the file does not describe an image tower.",
            hint="It needs a vision_cfg, as OpenCLIP writes it; or take the file away.",
        )
    return model


def _vision(model: Mapping[str, Any]) -> Mapping[str, Any]:
    vision: Mapping[str, Any] = model.get("vision_cfg", {})
    return vision


def _number(settings: Mapping[str, Any], name: str, default: int) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(
            f"The {_CONFIG} beside the file has {name} {value!r}.", hint="It counts features."
        )
    return value


def _preprocessing(contents: Contents, model: Mapping[str, Any]) -> Preprocessing:
    config = contents.beside.get(_CONFIG, {})
    asked = config.get("preprocess_cfg") or {}
    if not isinstance(asked, Mapping):
        raise CheckpointError(
            f"The {_CONFIG} beside the file has the preprocess_cfg {asked!r}.", hint="Mend it."
        )
    side = _side(asked.get("size") or _vision(model).get("image_size", CLIP.crop))
    mode, interpolation = asked.get("resize_mode", "shortest"), asked.get("interpolation")
    if mode not in ("shortest", "squash"):
        raise CheckpointError(
            f"{_CONFIG} asks for resize_mode {mode!r}.", hint="Supported: shortest, squash."
        )
    return Preprocessing(
        resize=(side, side) if mode == "squash" else side,
        crop=None if mode == "squash" else side,
        mean=_channels(asked.get("mean", CLIP.mean)),
        std=_channels(asked.get("std", CLIP.std)),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
    )


def _side(size: Any) -> int:
    if isinstance(size, list) and len(set(size)) == 1:
        size = size[0]
    if type(size) is not int or size < 1:
        raise CheckpointError(
            f"The {_CONFIG} beside the file is of images of {size!r} pixels.",
            hint="Only square images are supported; mend image_size or size.",
        )
    return size


def _channels(value: float | Sequence[float]) -> tuple[float, float, float]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * 3
    if len(values) != 3 or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise CheckpointError(
            f"The {_CONFIG} beside the file gives {value!r} for three channels.",
            hint="Mend its preprocess_cfg.",
        )
    return float(values[0]), float(values[1]), float(values[2])


def _notes(model: Mapping[str, Any], tower: Tower) -> tuple[str, ...]:
    notes = []
    if not model:
        notes.append(
            f"No {_CONFIG} lies beside the file: OpenAI's preprocessing is assumed, and of a "
            "transformer one that ends in its class token."
        )
    if not tower.head:
        notes.append("The image tower has no projection: its representation is the embedding.")
    return tuple(notes)

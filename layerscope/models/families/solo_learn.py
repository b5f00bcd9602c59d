"""solo-learn: Lightning checkpoints of a backbone, a projector and an online classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.heads import (
    Operation,
    l2,
    linear,
    numbered_logits,
    sequential,
    weight_normed,
)
from layerscope.models.preprocessing import CIFAR10, IMAGENET
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk
from layerscope.types import Preprocessing

_PREFIXES: dict[Branch, str] = {"online": "", "momentum": "momentum_"}
_WHITENING = "projector.7.running_wm"
_NOT_WHITENED = "The head ends before VIbCReg's whitening of the embedding."
_MORE_ATTENTION_HEADS = {192: 12, 384: 12, 768: 12, 1024: 16}
"""What is known of the transformers that MoCo v3 and MAE have to themselves."""
_PREPROCESSING = {
    "cifar10": CIFAR10,
    "cifar100": replace(CIFAR10, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    "stl10": replace(
        IMAGENET, resize=96, crop=96, mean=(0.4914, 0.4823, 0.4466), std=(0.247, 0.243, 0.261)
    ),
}
_IGNORED = {
    r".*\b(momentum_)?classifier\.": "a classifier trained beside the method",
    r".*\bqueue(_[a-z]+)?$": "embeddings of the last batches",
    r".*\b(local_memory_|whitening\.|dino_loss|transformer_encoder\.|predictor2\.)": (
        "state of the training"
    ),
    r".*\bprojector\.7\.": "whitens the embedding over groups of features; not rebuilt",
    r".*\bdecoder\.": "reconstructs pixels",
    r".*\b(momentum_)?(backbone|encoder|projector|predictor|head)\.": "the other branch's weights",
}


@register
class SoloLearn(Family):
    """The checkpoints of vturrisi/solo-learn, of every method that it trains."""

    name = "solo-learn"
    title = "solo-learn"
    layout = "state_dict: backbone. (old: encoder.), projector. or head., classifier."
    source = "vturrisi/solo-learn solo/methods/*.py, main_linear.py"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        backbone = _backbone(weights)
        if not backbone or not weights.has(r"classifier\.weight$"):
            return ""
        for module, key in _BEHIND.items():
            if weights.has(key):
                return f"{backbone} and {module} beside an online classifier"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        prefix, weights = _PREFIXES[branch], contents.state_dict
        own = require_weights(weights.under(f"{prefix}{_backbone(weights)}."), branch)
        trunk = _trunk(own, weights, contents, declared)
        behind = _behind(weights, prefix)
        return Parts(
            trunk=trunk,
            tensors=behind,
            head=_head(behind, _activation(weights, contents, declared), weights.has(r"queue$")),
            predictor=sequential(behind, "predictor.", declared.head_act or "relu"),
            logits=_logits(behind),
            ignored=_IGNORED,
            preprocessing=_preprocessing(trunk, weights, contents),
            notes=(_NOT_WHITENED,) if _WHITENING in weights else (),
        )


_BEHIND = {
    "projector": r"projector\.0\.weight$",
    "head": r"head\.mlp\.",
    "decoder": r"decoder\.decoder_embed\.",
}


def _backbone(weights: Weights) -> str:
    return next((name for name in ("backbone", "encoder") if weights.has(rf"{name}\.")), "")


def _behind(weights: Weights, prefix: str) -> Weights:
    """Return what a branch has behind its trunk, named as in the online branch."""
    if prefix:
        return weights.under(prefix).only("projector.", "head.")
    behind = weights.only("projector.", "head.", "predictor.", "prototypes.")
    return behind.without("projector.7.") if _WHITENING in behind else behind


def _trunk(own: Weights, weights: Weights, contents: Contents, declared: Declared) -> Trunk:
    if own.shapes.get("conv1.weight", (0,))[-1] == 3:
        # The 3 × 3 stem is padded by 2, so that its maps are two pixels wider than the image.
        return build_trunk(own, TrunkFacts(stem="cifar", stem_padding=2), declared)
    return build_trunk(
        own,
        TrunkFacts(stem="imagenet", attention_heads=_attention_heads(weights, contents)),
        declared,
    )


def _attention_heads(weights: Weights, contents: Contents) -> Mapping[int, int] | None:
    method = _method(contents)
    if method == "mae" or weights.has(_BEHIND["decoder"]):
        return _MORE_ATTENTION_HEADS
    # Only MoCo v3 leaves every Linear without a bias.
    behind = weights.only("projector.", "predictor.")
    biased = any(
        name.removesuffix("weight") + "bias" in behind
        for name, shape in behind.shapes.items()
        if len(shape) == 2
    )
    if method == "mocov3" or (not method and behind.has(r"predictor\.") and not biased):
        return _MORE_ATTENTION_HEADS
    return None


def _activation(weights: Weights, contents: Contents, declared: Declared) -> Activation | None:
    if declared.head_act is not None:
        return declared.head_act
    method = _method(contents)
    if weights.has(r"head\.mlp\.") or method == "vibcreg" or _WHITENING in weights:
        return "gelu"
    # VIbCReg without its whitening has the same tensors as VICReg and Barlow Twins, but a GELU.
    alike = weights.has(r"projector\.4\.running_mean$", r"projector\.6\.bias$") and not weights.has(
        r"(predictor\.|projector\.7\.|momentum_projector\.)"
    )
    return None if alike and not method else "relu"


def _head(behind: Weights, activation: Activation | None, queue: bool) -> Sequence[Operation]:
    if "head.mlp.weight" in behind:
        return linear("head.mlp"), l2()
    if behind.has(r"head\.mlp\."):
        return sequential(behind, "head.mlp.", activation, last=[l2()])
    if not behind.has(r"projector\."):
        return ()
    # MoCo and ReSSL, whose two bare Linears are compared with a queue, and SwAV and DeepCluster.
    normalised = (queue and behind.has(r"projector\.2\.weight$")) or behind.has(r"prototypes\.")
    return sequential(behind, "projector.", activation, last=[l2()] if normalised else [])


def _logits(behind: Weights) -> Mapping[str, Sequence[Operation]]:
    if behind.has(r"head\.last_layer\."):
        return {"Q": (weight_normed("head.last_layer"),)}
    if behind.has(r"prototypes\.(weight_v$|parametrizations\.)"):
        return {"Q": (weight_normed("prototypes"),)}
    names = behind.only("prototypes.")
    return numbered_logits([linear(name.removesuffix(".weight")) for name in names])


def _method(contents: Contents) -> str:
    method = _arguments(contents).get("method") or contents.value("hyper_parameters", "method")
    return str(method or "")


def _arguments(contents: Contents) -> Mapping[str, Any]:
    found: Mapping[str, Any] = contents.beside.get("args.json", {})
    return found


def _preprocessing(trunk: Trunk, weights: Weights, contents: Contents) -> Preprocessing:
    arguments = _arguments(contents)
    data = arguments.get("data", arguments)
    named = data.get("dataset") if isinstance(data, Mapping) else None
    if named is None and trunk.details.get("stem") == "cifar":
        # The stem is for CIFAR alone, and the online classifier tells which: 10 or 100 classes.
        named = "cifar100" if weights["classifier.weight"].shape[0] == 100 else "cifar10"
    return _PREPROCESSING.get(str(named), IMAGENET)

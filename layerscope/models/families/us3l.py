"""US3L: universally slimmable encoders, one file for every width between a quarter and all."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Branch, Declared, Stem
from layerscope.models.families import Family, Parts, branch_of, register
from layerscope.models.heads import sequential
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks import TrunkFacts, build_trunk
from layerscope.types import Preprocessing

_ENCODERS: dict[Branch, str] = {"online": "encoder_q.", "momentum": "encoder_k."}
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
_SIGNATURE = (
    r"encoder_q\.conv1\.weight$",
    r"encoder_q\.fc\.0\.weight$",
    r"encoder_q\.fc\.1\.weight$",
    r"encoder_q\.fc\.6\.weight$",
)
_DIVISOR = 8
_CIFAR = Preprocessing(
    resize=36,
    crop=32,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    interpolation="bicubic",
)
"""From workers/linear.py: channel statistics with the standard deviation within images."""


@register
class US3L(Family):
    """The checkpoints of megvii-research/US3L-CVPR2023: slimmable SimCLR, BYOL and their like."""

    name = "us3l"
    title = "US3L (slimmable)"
    layout = "state_dict: module.encoder_q. with fc.0 to fc.6, module.encoder_k., predictor"
    source = "megvii-research/US3L-CVPR2023 utils/ssl_algorithms, models/OFA/slimmable_ops.py"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if weights.has(*_SIGNATURE) and not weights.has(r"queue$"):
            return "encoder_q with an fc of three layers, and no queue"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        """Return the trunk and the head at one width, the predictor behind the online branch.

        A slimmable network trains each width with the statistics of its batches and keeps none, so
        the BatchNorms of trunk and head are without statistics until they are calibrated. The
        head's running statistics mix all widths and are dropped.
        """
        branch = branch_of(self, declared)
        weights = contents.state_dict
        encoder = weights.under(_ENCODERS[branch])
        slimmable = "bn1.running_mean" not in encoder
        trained = _trained(encoder.without("fc."))
        width = _width(declared, branch, slimmable, trained)
        trunk = build_trunk(
            _slimmed(encoder.without("fc."), width),
            TrunkFacts(stem=_stem(encoder), statistics=not slimmable),
            declared,
        )
        behind = encoder.only("fc.").joined(weights.only("predictor."))
        predicted = branch == "online" and "predictor.0.weight" in behind
        if not predicted:
            behind = behind.without("predictor.")
        behind = behind.mapped(
            r"fc\.0\.weight", lambda weight: weight[:, : _divisible(weight.shape[1] * width)]
        )
        kept = [name for name in behind if not name.endswith(_STATISTICS)]
        activation = declared.head_act or "relu"
        return Parts(
            trunk=trunk,
            tensors=behind.only(*kept) if slimmable else behind,
            head=sequential(behind, "fc.", activation),
            predictor=sequential(behind, "predictor.", activation) if predicted else (),
            ignored={
                r".*\b(encoder_[qk]\.fc|predictor)\.\d\.(running|num)": "mixes all widths",
                r".*\bencoder_[qk]\.": "the other branch's weights",
                r".*\bpredictor_new\.": "the predictor of the distillation",
                r".*\bpredictor\.": "the predictor, which the momentum branch has not",
                r".*\bproj_conv\.": "maps between features for the distillation",
            },
            preprocessing=IMAGENET if _stem(encoder) == "imagenet" else _CIFAR,
            notes=_notes(slimmable, width) or _mixed(encoder),
            architecture={"width_multiplier": width, "slimmable": slimmable},
        )


def _trained(trunk: Weights) -> Mapping[int, int]:
    """Return, by a BatchNorm's channels, how many were trained; nothing where all were.

    A network that was trained at one width below 1 keeps all its channels in the file. The bias of
    a BatchNorm begins at zero and leaves it with the first step, save in channels that never ran.
    """
    trained: dict[int, int] = {}
    for name in trunk:
        if name.endswith(".bias") and trunk[name].dim() == 1:
            channels, ran = len(trunk[name]), trunk[name].nonzero()
            last = int(ran[-1]) + 1 if len(ran) else 0
            trained[channels] = max(last, trained.get(channels, 0))
    partly = all(0 < ran < channels for channels, ran in trained.items())
    return trained if partly else {}


def _width(
    declared: Declared, branch: Branch, slimmable: bool, trained: Mapping[int, int]
) -> float:
    width = 1.0 if declared.width is None else float(declared.width)
    if not 0 < width <= 1:
        raise CheckpointError(
            f"The width {width:g} is not a share of the network's channels.",
            hint="Choose one in (0, 1]; US3L trains from 0.25 to 1.",
        )
    used = {channels: _divisible(channels * width) for channels in trained}
    if any(used[channels] > ran for channels, ran in trained.items()):
        widest = max(trained)
        raise CheckpointError(
            f"At width {width:g} the network has channels that were never trained: only the first "
            f"{trained[widest]} of {widest} were.",
            hint=f"Choose the trained width: --declare width={trained[widest] / widest:g}, "
            "or near it.",
        )
    if width < 1 and not slimmable and (not trained or used != trained):
        raise CheckpointError(
            f"The network was trained at one width only, so it has no width {width:g}.",
            hint="Its BatchNorms hold the statistics of that width alone: declare no width, or "
            "state the width that it was trained at.",
        )
    if width < 1 and branch == "momentum":
        raise CheckpointError(
            f"The momentum encoder was used at full width only, not at {width:g}.",
            hint="Declare no width, or take --declare branch=online.",
        )
    return width


def _stem(encoder: Weights) -> Stem:
    return "cifar" if encoder["conv1.weight"].shape[-1] == 3 else "imagenet"


def _slimmed(trunk: Weights, width: float) -> Weights:
    """Return the leading channels of every tensor, the image's own three excepted."""

    def leading(tensor: Tensor) -> Tensor:
        slim = tensor[: _divisible(tensor.shape[0] * width)] if tensor.dim() else tensor
        if tensor.dim() == 4:
            slim = slim[:, : _divisible(tensor.shape[1] * width)]
        return slim

    stem = trunk.only("conv1.").mapped(".*", lambda t: t[: _divisible(t.shape[0] * width)])
    return trunk.without("conv1.").mapped(".*", leading).joined(stem)


def _divisible(channels: float) -> int:
    """Return the nearest multiple of 8, but no less than nine tenths of the channels."""
    rounded = max(1, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * channels else rounded


def _notes(slimmable: bool, width: float) -> tuple[str, ...]:
    if not slimmable:
        return ()
    return (
        f"Slimmable, at width {width:g}. The file holds no BatchNorm statistics for it: choose "
        "--declare batch_norm=recalibrate (over training images) or batch when extracting.",
    )


def _mixed(encoder: Weights) -> tuple[str, ...]:
    """Return a note about SimSiam, whose slimmable BatchNorms keep statistics at any widths.

    They never count their batches, unlike PyTorch's own; and the head's last one marks SimSiam.
    """
    counted = encoder.get("bn1.num_batches_tracked")
    if counted is None or counted.any() or "fc.7.running_mean" not in encoder:
        return ()
    return (
        "If it was trained at several widths, which the file does not say, its BatchNorm "
        "statistics mix them all.",
    )

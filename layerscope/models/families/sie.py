"""SIE: a ResNet of TensorFlow's padding, its representation shared out to two heads."""

from __future__ import annotations

from typing import Any

from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import sequential
from layerscope.models.parallel_heads import ParallelHead
from layerscope.models.trunks import Trunk, resnet
from layerscope.types import Preprocessing

_3DIEBENCH = Preprocessing(
    resize=(256, 256), crop=None, mean=(0.5016, 0.5037, 0.5060), std=(0.1030, 0.0999, 0.0969)
)
_STRIDE = 32
_BACKBONE = r"backbone\.conv1\.weight$"
_PROBE = r"evaluator\.classifier_repr\.weight$"
_HEADS = {"inv": "projector_inv.", "equi": "projector_equi."}
_PADDED = ((r"^conv1\.", "conv1.1."), (r"^(layer[2-4]\.0)\.conv2\.", r"\1.conv2.1."))
_SHARED = (
    "The representation is shared out: its first features go to the invariant head, the others to "
    "the equivariant one. head.1 and on are both heads' layers joined, as in SIE's own evaluation; "
    "trunk.inv, trunk.equi, head.1.inv and their like are the shares."
)
_NO_HEAD = "The file holds the backbone alone, so the drop behind the trunk cannot be seen in it."


@register
class SIE(Family):
    """The checkpoints of facebookresearch/SIE, its baselines among them."""

    name = "sie"
    title = "SIE (3DIEBench)"
    layout = (
        "model: module.backbone., module.projector_inv., module.projector_equi., module.evaluator."
    )
    source = "facebookresearch/SIE src/models.py, src/resnet.py, main.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        heads = [prefix for prefix in _HEADS.values() if weights.only(prefix)]
        if weights.has(_BACKBONE) and (heads or weights.has(_PROBE)):
            return f"backbone beside {', '.join(heads) or 'evaluator.classifier_repr'}"
        if _is_backbone(weights):
            return "a basic-block ResNet whose first block has a downsample of its own"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        _check_size(declared.image_size)
        weights = contents.state_dict
        alone = _is_backbone(weights)
        trunk = _trunk(weights if alone else weights.under("backbone."))
        heads = weights.only("projector")
        act: Activation = declared.head_act or "relu"
        kind: dict[str, Any] = {"notes": (_NO_HEAD,)}
        if _HEADS["inv"] + "0.weight" in heads:
            shares = _shares(heads, _width(trunk), act)
            shared = shares["inv"].stop < _width(trunk)
            kind = {"parallel": shares, "notes": (_SHARED,) if shared else ()}
        elif heads:
            prefix = "projector." if heads.only("projector.") else _HEADS["equi"]
            kind = {"head": sequential(heads, prefix, act)}
        return Parts(
            trunk=trunk,
            tensors=heads,
            ignored={
                r".*\bpredictor\.": "needs the transformation between two images as well",
                r".*\bevaluator\.": "probes that were trained beside the network",
            },
            preprocessing=_3DIEBENCH,
            **kind,
        )


def _check_size(side: int | None) -> None:
    if side is not None and side % _STRIDE:
        raise CheckpointError(
            f"SIE's network cannot see images of {side} pixels.",
            hint=f"Its padding fits multiples of {_STRIDE}; choose one with --declare image_size.",
        )


def _is_backbone(weights: Weights) -> bool:
    shapes = weights.shapes
    return (
        resnet.fits(shapes)
        and "layer1.0.downsample.0.weight" in shapes
        and "layer1.0.conv3.weight" not in shapes
        and not weights.only("fc.")
    )


def _width(trunk: Trunk) -> int:
    last = list(trunk.module.parameters())[-1]
    return int(last.shape[0])


def _shares(heads: Weights, width: int, act: Activation) -> dict[str, ParallelHead]:
    takes = {name: _inputs(heads, prefix) for name, prefix in _HEADS.items()}
    inv, equi = takes["inv"], takes["equi"]
    if inv == equi == width:
        reads = {"inv": (0, width), "equi": (0, width)}
    elif inv + equi == width:
        reads = {"inv": (0, inv), "equi": (inv, width)}
    else:
        raise CheckpointError(
            f"The heads take {inv} and {equi} features of a representation of {width}.",
            hint="SIE's heads share it out, or read all of it both.",
        )
    return {
        name: ParallelHead(sequential(heads, prefix, act), *reads[name])
        for name, prefix in _HEADS.items()
    }


def _inputs(heads: Weights, prefix: str) -> int:
    shape = heads.shapes.get(f"{prefix}0.weight", ())
    if len(shape) != 2:
        raise CheckpointError(
            f"The head's {prefix}0.weight is not there, or no matrix.",
            hint="The file holds heads of another structure than its family's.",
        )
    return shape[1]


def _trunk(tensors: Weights) -> Trunk:
    """Return torchvision's ResNet with the padding of SIE's.

    Where a convolution or the pooling has stride 2, SIE pads as TensorFlow does for even sizes:
    one more at the bottom and right than at the top and left. Padding the maximum with zeros is
    the same as with its −10,000, since no value behind a ReLU is below zero. A basic block's
    stride is in its second convolution, not in its first; and the first block of every stage has a
    projecting shortcut, whether its width changes or not.
    """
    shapes = tensors.shapes
    module = resnet.trunk_from_shapes(shapes)
    module.conv1 = _padded(module.conv1, (2, 3, 2, 3))
    module.maxpool = _padded(module.maxpool, (0, 1, 0, 1))
    for stage in (module.layer2, module.layer3, module.layer4):
        block = stage[0]
        block.conv1.stride, block.conv2.stride = (1, 1), (2, 2)
        block.conv2 = _padded(block.conv2, (0, 1, 0, 1))
    if module.layer1[0].downsample is None and "layer1.0.downsample.0.weight" in shapes:
        width = module.bn1.num_features
        module.layer1[0].downsample = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)
        )
    return Trunk(
        module=module,
        weights=tensors.renamed(_PADDED),
        stops=resnet.stops(shapes),
        name=resnet.outline(shapes).name,
        details={"width": shapes["conv1.weight"][0], "padding": "as TensorFlow's"},
    )


def _padded(layer: Any, sides: tuple[int, int, int, int]) -> nn.Sequential:
    layer.padding = (0, 0)
    return nn.Sequential(nn.ZeroPad2d(sides), layer)

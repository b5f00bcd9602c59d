"""Plain torchvision ResNets: ``conv1``, ``layer1`` to ``layer4`` and, usually, ``fc``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from layerscope.models.cuts import Stop
from layerscope.models.families import Assembly, families
from layerscope.models.heads import Head, TrunkAndHead
from layerscope.models.loading import fill
from layerscope.models.resnet import Shapes, outline, trunk_from_shapes

_CLASSIFIER = "fc."
_SIGNATURE = (
    "conv1.weight",
    "bn1.running_mean",
    "layer1.0.conv1.weight",
    "layer4.0.conv1.weight",
)


def trunk_stops(shapes: Shapes, prefix: str = "trunk.") -> tuple[Stop, ...]:
    """Return the canonical stops of a ResNet trunk: stem, every block, the pooled end.

    A residual block is one layer: nothing inside of it is a cut point, since a skip connection
    would cross the cut (Guillotine Regularization, footnote 3).

    Args:
        shapes: Shape of every tensor of the trunk, by torchvision's key.
        prefix: Of the trunk's modules within the network.
    """
    blocks = [
        f"layer{stage}.{block}"
        for stage, count in enumerate(outline(shapes).blocks, start=1)
        for block in range(count)
    ]
    return (
        Stop("stem", f"{prefix}maxpool", "trunk"),
        *(Stop(name, f"{prefix}{name}", "trunk") for name in blocks),
        Stop("trunk", f"{prefix}avgpool", "trunk"),
    )


class TorchvisionResNet:
    """The state dict of any torchvision ResNet, ResNeXt or wide ResNet."""

    name = "torchvision-resnet"
    title = "torchvision ResNet, ResNeXt, wide ResNet"

    def recognise(self, tensors: Mapping[str, Tensor]) -> str:
        """Return why these tensors are of this family, or an empty string."""
        if all(key in tensors for key in _SIGNATURE):
            return "conv1, bn1 and layer1 to layer4 at the top level"
        return ""

    def assemble(self, tensors: Mapping[str, Tensor]) -> Assembly:
        """Return the network, its classifier (if any) as the only head layer."""
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        trunk = trunk_from_shapes(shapes)
        classifier = _classifier(tensors)
        network = TrunkAndHead(trunk, Head([classifier] if classifier else []))
        keys = {key: _home(key) for key in tensors}
        fill(network, {keys[key]: tensor for key, tensor in tensors.items()})
        stops = trunk_stops(shapes)
        if classifier is not None:
            stops = (*stops, Stop("head.1", "head.1", "head"))
        return Assembly(
            module=network,
            stops=stops,
            architecture={"trunk": outline(shapes).name, "width": shapes["conv1.weight"][0]},
            head=f"classifier, {classifier.out_features} classes" if classifier else "none",
            keys=keys,
        )


def _home(key: str) -> str:
    if key.startswith(_CLASSIFIER):
        return f"head.1.{key.removeprefix(_CLASSIFIER)}"
    return f"trunk.{key}"


def _classifier(tensors: Mapping[str, Tensor]) -> nn.Linear | None:
    weight = tensors.get("fc.weight")
    if weight is None or weight.dim() != 2:
        return None
    return nn.Linear(weight.shape[1], weight.shape[0], bias="fc.bias" in tensors)


families.add(TorchvisionResNet.name, TorchvisionResNet())

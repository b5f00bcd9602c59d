"""BYOL by yaox12/BYOL-PyTorch: the code's checkpoints, and the release of an older code."""

from __future__ import annotations

import torch
import torchvision

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Activation, Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.heads import Operation, act, linear, norm
from layerscope.models.trunks import TrunkFacts, build_trunk

CHILDREN = (  # torchvision's children: conv1, bn1, relu, maxpool, layer1 to layer4
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{stage + 3}\.", f"layer{stage}.") for stage in range(1, 5)),
)
_NETWORKS: dict[Branch, str] = {"online": "online_network.", "momentum": "target_network."}
_MODULES: dict[Branch, str] = {"online": "online_", "momentum": "target_"}
_DEPTHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_MLP = (
    *("l1.weight", "l1.bias"),
    *("bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"),
    *("l2.weight", "l2.bias"),
)


@register
class BYOLYaox12(Family):
    """The checkpoints of yaox12/BYOL-PyTorch."""

    name = "byol-yaox12"
    title = "BYOL (yaox12)"
    layout = "model: online_network.encoder.0., online_network.projetion.; or online_backbone, …"
    source = "yaox12/BYOL-PyTorch model/basic_modules.py, utils/load_and_convert.py"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        if contents.state_dict.has(
            r"online_network\.encoder\.0\.weight$", r"online_network\.projetion\.l1\.weight$"
        ):
            return "online_network with encoder and projetion.l1"
        if {"online_backbone", "online_projection"} <= contents.names():
            return "online_backbone beside online_projection"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        if "online_backbone" in contents.names():
            trunk, tensors = _released(contents, branch)
        else:
            trunk, tensors = _saved(contents.state_dict, branch)
        activation = declared.head_act or "relu"
        return Parts(
            trunk=build_trunk(trunk, TrunkFacts(stem="imagenet"), declared),
            tensors=tensors,
            head=_mlp("projection", activation),
            predictor=_mlp("predictor", activation) if branch == "online" else (),
            ignored={
                r".*\b(online|target)_": "the other branch's weights",
                r".*\bpredictor\b": "the other branch's weights",
                r"(amp|config)/": "state of the training",
            },
        )


def _saved(weights: Weights, branch: Branch) -> tuple[Weights, Weights]:
    network = require_weights(weights.under(_NETWORKS[branch]), branch)
    behind = network.under("projetion.").within("projection.")
    if branch == "online":
        behind = behind.joined(weights.under("predictor.predictor.").within("predictor."))
    return network.under("encoder.").renamed(CHILDREN), behind


def _released(contents: Contents, branch: Branch) -> tuple[Weights, Weights]:
    """Return the release's modules, whose tensors have older names in the usual order."""
    prefix = _MODULES[branch]
    backbone = require_weights(unwrapped(contents.table(f"{prefix}backbone")), branch)
    behind = _in_order(contents, f"{prefix}projection", "projection.")
    if branch == "online":
        behind = behind.joined(_in_order(contents, "predictor", "predictor."))
    return _as_torchvision(backbone), behind


def _as_torchvision(backbone: Weights) -> Weights:
    """Return the backbone's tensors by torchvision's keys: of the depth with just these shapes."""
    for depth in _DEPTHS:
        with torch.device("meta"):
            network = getattr(torchvision.models, depth)()
        wanted = {
            name: tuple(tensor.shape)
            for name, tensor in network.state_dict().items()
            if not name.startswith("fc.") and not _counter(name)
        }
        if [shape for name, shape in backbone.shapes.items() if not _counter(name)] == list(
            wanted.values()
        ):
            return _renamed(backbone, list(wanted), "The backbone")
    raise CheckpointError(
        f"The backbone's {len(backbone)} tensors have not, in their order, the shapes of a "
        "torchvision ResNet without its classifier.",
        hint=f"Known: {', '.join(_DEPTHS)}.",
    )


def _in_order(contents: Contents, table: str, prefix: str) -> Weights:
    names = [prefix + name for name in _MLP]
    return _renamed(unwrapped(contents.table(table)), names, table)


def _renamed(module: Weights, names: list[str], title: str) -> Weights:
    """Return the tensors by new names in their order, of which the last parts have to agree."""
    kept = [name for name in module if not _counter(name)]
    if [_kind(name) for name in kept] != [_kind(name) for name in names]:
        raise CheckpointError(
            f"{title} holds {', '.join(kept[:4])}, …, which in their order are not the parameters "
            "that it is known to have.",
            hint="The network is of another structure; describe it with --declare arch.",
        )
    new = dict(zip(kept, names, strict=True))
    return Weights(
        {new[name]: module[name] for name in kept},
        {new[name]: module.origins[name] for name in kept},
    )


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _mlp(name: str, activation: Activation) -> tuple[Operation, ...]:
    return linear(f"{name}.l1"), norm(f"{name}.bn1"), act(activation), linear(f"{name}.l2")

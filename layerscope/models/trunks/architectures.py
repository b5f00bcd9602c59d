"""The architectures of timm and torchvision by name: built, and cut before their classifier."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models.squeezenet import SqueezeNet

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models.heads import ACTIVATIONS, Operation, act, layer_norm, linear, norm
from layerscope.models.trunks import chain
from layerscope.models.trunks.trunk import Shapes

Library = Literal["timm", "torchvision"]

_SIDE = 224
_COUNTER = "num_batches_tracked"
_GRID = re.compile(r"(.*\.)?(absolute_)?pos_emb\w*$")
_ACTIVATIONS = {layer: name for name, layer in ACTIVATIONS.items()}
_TRAINING_ONLY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
"""Auxiliary classifiers, by the architecture of torchvision."""


@dataclass(frozen=True, slots=True, order=True)
class Architecture:
    """An architecture of one of the two libraries."""

    library: Library
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Arguments that a file's own configuration gives to its factory."""

    def __str__(self) -> str:
        """Return what ``--declare arch`` takes: ``timm.models:resnet18``."""
        return f"{self.library}.models:{self.name}"

    @property
    def title(self) -> str:
        """What the architecture is called in messages: ``timm's resnet18``."""
        return f"{self.library}'s {self.name}"

    def create(self, classes: int | None = None, side: int | None = None) -> nn.Module:
        """Return the network with random weights, in eval mode.

        Args:
            classes: Outputs of its classifier; None for as many as it has by default, 0 for none.
            side: Side of its images in pixels; None for its usual size.
        """
        settings = dict(self.settings)
        settings |= {} if classes is None else {"num_classes": classes}
        with torch.random.fork_rng(devices=[]):
            if self.library == "timm":
                settings |= {} if side is None else {"img_size": side}
                network: nn.Module = timm.create_model(self.name, **settings)
            else:
                settings |= {} if side is None else {"image_size": side}
                if self.name in _TRAINING_ONLY:
                    settings |= {"aux_logits": False, "init_weights": False}
                network = torchvision_models.get_model(self.name, weights=None, **settings)
        return network.eval()

    def outline(self, classes: int | None = None, side: int | None = None) -> nn.Module:
        """Return the network on the ``meta`` device: shapes without values."""
        try:
            with torch.device("meta"):
                return self.create(classes, side)
        except NotImplementedError:
            # torchvision's RegNet computes its widths with tensors.
            return self.create(classes, side).to("meta")

    def side(self, network: nn.Module) -> int:
        """Return the side of the images that the network was built for."""
        if self.library == "torchvision":
            return _SIDE
        built_for = getattr(getattr(network, "patch_embed", None), "img_size", None)
        return int(built_for[-1] if built_for else network.pretrained_cfg["input_size"][-1])  # type: ignore[index]

    @property
    def training_only(self) -> tuple[str, ...]:
        """The auxiliary classifiers that only training uses."""
        return _TRAINING_ONLY.get(self.name, ()) if self.library == "torchvision" else ()


def versions() -> dict[str, str]:
    """Return the versions of the two libraries."""
    return {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}


def training_only() -> tuple[str, ...]:
    """Return the names of the auxiliary classifiers of all architectures."""
    return tuple(name for names in _TRAINING_ONLY.values() for name in names)


def all_names(library: Library) -> list[str]:
    """Return the names of a library's networks for classification."""
    if library == "timm":
        return list(timm.list_models())
    return list(torchvision_models.list_models(module=torchvision_models))


def by_name(library: Library, name: str) -> Architecture:
    """Return an architecture by its library's name for it, a tag such as ``.a1_in1k`` left out.

    Raises:
        UnknownNameError: The library has no such architecture.
    """
    plain = name.partition(".")[0]
    known = timm.is_model(plain) if library == "timm" else plain in all_names(library)
    if not known:
        raise UnknownNameError(f"architecture of {library}", name, all_names(library))
    return Architecture(library, plain)


@dataclass(frozen=True, slots=True)
class ClassifierSplit:
    """Where a network's classifier begins, and what it is made of."""

    removed: tuple[str, ...]
    """The modules to be left out of the trunk: what their keys begin with."""
    operations: tuple[Operation, ...] = ()
    """The classifier as a head; empty where it is no chain of layers."""
    reason: str = ""
    """Why it is no chain of layers."""
    averaged: bool = False
    """Whether it works on a map, so that the trunk ends in the map's mean."""

    def owns(self, key: str) -> bool:
        """Return whether a key belongs to the classifier."""
        return key.startswith(tuple(f"{name}." for name in self.removed))


def split_classifier(network: nn.Module, side: int) -> ClassifierSplit:
    """Return where the classifier of a network on the ``meta`` device begins.

    Args:
        network: With its classifier.
        side: Side of its images, in pixels.
    """
    if getattr(network, "num_classes", None) == 0:
        return ClassifierSplit(())
    last = chain.last_affine(network, chain.trace_shapes(network, side))
    if last is not None:
        parent, _, own = last.rpartition(".")
        operations = _operations(network.get_submodule(parent), parent, own) if parent else None
        operations = operations or (linear(last),)
        return ClassifierSplit(tuple(step.key for step in operations if step.key), operations)
    return _no_chain(network)


def _operations(parent: nn.Module, prefix: str, last: str) -> tuple[Operation, ...] | None:
    """Return a Sequential's operations from its first Linear on; None where it is no MLP."""
    if type(parent) is not nn.Sequential:
        return None
    members = [(f"{prefix}.{name}", module) for name, module in parent.named_children()]
    first = next((i for i, (_, m) in enumerate(members) if isinstance(m, nn.Linear)), None)
    if first is None or members[-1][0] != f"{prefix}.{last}":
        return None
    steps = [_operation(key, module) for key, module in members[first:]]
    if None in steps:
        return None
    return tuple(step for step in steps if step is not None)


def _operation(key: str, module: nn.Module) -> Operation | None:
    kind = type(module)
    if kind is nn.Linear:
        return linear(key)
    if kind is nn.Dropout or kind is nn.Identity:
        return act("none")
    if isinstance(module, nn.LayerNorm) and kind.__name__ == "LayerNorm":
        return layer_norm(key, module.eps)
    if isinstance(module, nn.BatchNorm1d):
        return norm(key, module.eps)
    if kind is nn.GELU and module.approximate != "none":
        return None
    return act(_ACTIVATIONS[kind]) if kind in _ACTIVATIONS else None


def _no_chain(network: nn.Module) -> ClassifierSplit:
    declared = getattr(network, "pretrained_cfg", {}).get("classifier")
    names = (declared,) if isinstance(declared, str) else tuple(declared or ())
    if isinstance(network, SqueezeNet):
        # The last convolution gives a map of logits for every place, which are averaged.
        reason = "a classifier of every place of the map, whose logits are averaged"
        return ClassifierSplit(("classifier.1",), reason=reason, averaged=True)
    if len(names) > 1:
        reason = f"one of {len(names)} classifiers side by side, which are no chain of layers"
        return ClassifierSplit(names, reason=reason)
    if names:
        return ClassifierSplit(names, reason="a classifier that is no Linear layer")
    raise CheckpointError(
        f"The classifier of a {type(network).__name__} is not known.",
        hint="Describe the network itself with --declare arch=package.module:factory.",
    )


def without_classifier(network: nn.Module, parts: ClassifierSplit) -> nn.Module:
    """Return the network, changed in place to return what its classifier reads."""
    sequence, _, first = parts.removed[0].rpartition(".") if parts.removed else ("", "", "")
    if len(parts.operations) > 1:
        classifier = network.get_submodule(sequence)
        kept = nn.Sequential()
        for name, module in classifier.named_children():
            if name == first:
                break
            kept.add_module(name, module)
        network.set_submodule(sequence, kept)
    else:
        for name in parts.removed:
            network.set_submodule(name, nn.Identity())
    if parts.averaged:
        network.set_submodule(parts.removed[0].rpartition(".")[0], nn.AdaptiveAvgPool2d(1))
    return network


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's state dict, counters left out."""
    return countless({key: tuple(t.shape) for key, t in network.state_dict().items()})


def countless(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the shapes without those of BatchNorms' counters, which old files lack."""
    return {key: shape for key, shape in shapes.items() if not key.endswith(_COUNTER)}


def outside(shapes: Shapes, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes whose keys are of none of the named modules."""
    prefixes = tuple(f"{name}." for name in names)
    return {key: shape for key, shape in shapes.items() if not key.startswith(prefixes or ("\0",))}


def digest(shapes: Shapes) -> str:
    """Return a short digest of names and shapes, position embeddings left out.

    Those depend on the size of the images. What has the digest is a candidate, and still has to
    take every tensor strictly.
    """
    lines = (f"{key} {shape}" for key, shape in countless(shapes).items() if not _GRID.match(key))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def positions(shapes: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of position embeddings."""
    return ((key, shape) for key, shape in shapes.items() if _GRID.match(key))


def forms(architecture: Architecture) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield what the classifier of an architecture is called, and the shapes of all the rest.

    A network that is built without a classifier may have other parts than one whose classifier was
    taken away; then it is a form of its own.
    """
    whole = architecture.outline()
    parts = split_classifier(whole, architecture.side(whole))
    shapes = outside(shapes_of(whole), parts.removed)
    yield parts.removed, shapes
    if architecture.library == "timm" and parts.removed:
        bare = shapes_of(architecture.outline(classes=0))
        if digest(bare) != digest(shapes):
            yield (), bare

"""Checkpoint families, one file each, recognised by their keys and never by a file's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from layerscope.models.cuts import Stop
from layerscope.nouns import Preprocessing
from layerscope.registry import Registry

IMAGENET = Preprocessing(
    resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""What torchvision's classification networks were evaluated with."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """A network put together from a file's tensors, and what of them was used."""

    module: nn.Module
    stops: tuple[Stop, ...]
    architecture: Mapping[str, Any]
    head: str
    keys: Mapping[str, str]
    """By the file's key: the parameter or buffer that it filled."""
    ignored: Mapping[str, str] = field(default_factory=dict)
    """By the file's key: why it was not used."""
    preprocessing: Preprocessing = IMAGENET


class Family(Protocol):
    """How one kind of checkpoint is recognised and put together."""

    name: str
    title: str

    def recognise(self, tensors: Mapping[str, Tensor]) -> str:
        """Return why these tensors are of this family, or an empty string when they are not."""
        ...

    def assemble(self, tensors: Mapping[str, Tensor]) -> Assembly:
        """Return the network with these tensors loaded, every parameter of the trunk covered."""
        ...


families: Registry[Family] = Registry(
    "checkpoint family", package="layerscope.models.families", group="layerscope.families"
)
"""Every known family by name."""

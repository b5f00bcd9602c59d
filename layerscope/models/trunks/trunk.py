"""A trunk by itself: the network up to its representation, and what is known of it beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from layerscope.models.contents import Weights
from layerscope.models.cuts import Stop
from layerscope.models.declared import Activation, Declared, Stem
from layerscope.types import Pooling

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of every tensor, by its key."""

Resample = Callable[[Tensor, int], Tensor]
"""Position embeddings (1, height, width, d) and a new side, to embeddings of that grid."""


@dataclass(frozen=True)
class Trunk:
    """A network from images (b, 3, h, w) to representations (b, d), and its file's tensors."""

    module: nn.Module
    weights: Weights
    """By the module's own keys."""
    stops: tuple[Stop, ...]
    """With modules named within the trunk; ``""`` is the trunk itself."""
    name: str
    """The architecture's usual name."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else of the architecture was told, declared or known of the family."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""
    image_size: int | None = None
    """Side in pixels of the only images that it takes; None where it takes any."""


@dataclass(frozen=True, slots=True)
class TrunkFacts:
    """What a family knows of its trunks that their weights do not tell."""

    stem: Stem | None = None
    """None where the family has both, so that a 3 × 3 stem has to be declared."""
    stem_padding: int | None = None
    """Padding of the stem's convolution; None for half its kernel."""
    statistics: bool = True
    """Whether BatchNorms come with running statistics; slimmable networks keep none."""
    attention_heads: int | Mapping[int, int] | None = None
    """How many attention heads a transformer has: a number, or numbers by its width; None for one
    head every 64 features."""
    trunk_act: Activation | None = "gelu"
    """The activation in a transformer's blocks; None where the family has several."""
    eps: float = 1e-6
    """The epsilon of a transformer's LayerNorms."""
    pooling: Pooling | None = None
    """How a transformer's tokens are pooled; None for the class token, or the mean without one."""
    image_size: int | None = None
    """Side of the images, in pixels; None for the grid of the position embedding."""
    resample: Resample | None = None
    """How the family interpolates position embeddings; None for timm's way."""

    def with_declared(self, declared: Declared) -> TrunkFacts:
        """Return this knowledge, the user's own declarations taking precedence."""
        names = ("stem", "attention_heads", "trunk_act", "image_size")
        given = declared.given()
        return replace(self, **{name: given[name] for name in names if name in given})

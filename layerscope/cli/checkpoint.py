"""The options of every command that names a checkpoint: what its weights cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.types import Activation, Axes, Branch, Statistics, Stem

if TYPE_CHECKING:
    from layerscope.models import LoadedModel

Family = Annotated[
    str | None,
    typer.Option("--family", help="Take the file for this family, where several fit."),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="MODULE:FACTORY",
        help="Your own network: what makes it, without arguments. This runs your code.",
    ),
]
HeadFrom = Annotated[
    str | None,
    typer.Option("--head-from", help="With --arch: the first module that belongs to the head."),
]
PrefixTokens = Annotated[
    int | None,
    typer.Option(
        "--prefix-tokens",
        min=0,
        help="With --arch: leading tokens that are no patches; the first is the class token.",
    ),
]
MapAxes = Annotated[
    Axes | None,
    typer.Option("--map-axes", help="With --arch: where channels are, if a trace cannot tell."),
]
WhichBranch = Annotated[
    Branch | None,
    typer.Option("--branch", help="Online (student) or momentum (teacher) weights."),
]
HeadAct = Annotated[
    Activation | None,
    typer.Option("--head-act", help="Activation between the head's layers."),
]
TrunkAct = Annotated[
    Activation | None,
    typer.Option("--trunk-act", help="Activation within a transformer's blocks."),
]
AttentionHeads = Annotated[
    int | None,
    typer.Option("--attention-heads", min=1, help="Of a transformer."),
]
WhichStem = Annotated[
    Stem | None,
    typer.Option(
        "--stem", help="Of a ResNet: stride 2 and pooling (imagenet), or neither (cifar)."
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", min=1, help="Side of the images in pixels, if not the usual."),
]
Width = Annotated[
    float | None,
    typer.Option("--width", min=0, max=1, help="Of a slimmable network: its share of channels."),
]
BatchNorm = Annotated[
    Statistics | None,
    typer.Option("--batch-norm", help="In place of BatchNorm statistics that the file lacks."),
]
Trust = Annotated[
    str | None,
    typer.Option(
        "--trust",
        metavar="NAME,NAME",
        help="Python objects that a pickle may mention; none is imported or run.",
    ),
]

_ANSWERS = (
    "family",
    "arch",
    "head_from",
    "prefix_tokens",
    "map_axes",
    "branch",
    "head_act",
    "trunk_act",
    "attention_heads",
    "stem",
    "image_size",
    "width",
    "batch_norm",
)


def load_with(name: str, words: Mapping[str, Any]) -> LoadedModel:
    """Return the network of a checkpoint, as the options of a command declare it.

    Args:
        name: A card's name, or a path.
        words: A command's parameters by name, these options among them.

    Raises:
        LayerScopeError: The checkpoint cannot be loaded.
    """
    from layerscope.models import load
    from layerscope.models.declared import Declared

    trust = [part.strip() for part in (words["trust"] or "").split(",")]
    declared = Declared(**{answer: words[answer] for answer in _ANSWERS})
    return load(name, declared, trust=tuple(filter(None, trust)))

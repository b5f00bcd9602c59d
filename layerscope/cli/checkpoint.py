"""``--declare KEY=VALUE``: what the weights of a checkpoint cannot tell about their network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from layerscope.cli.options import Compact, OptionGroup, network_option, older_option
from layerscope.types import Activation, Axes, Branch, Statistics, Stem

if TYPE_CHECKING:
    from layerscope.models import LoadedModel

CheckpointName = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="The name of a card, or the path of a card or of a file of weights.",
    ),
]

KEYS = {
    "family": "The family to read the file as, where several families fit.",
    "arch": "Your own network, as package.module:factory. LayerScope imports the module and calls "
    "the factory without arguments, which runs your code.",
    "head_from": "With arch: the name of the first module that belongs to the head.",
    "prefix_tokens": "With arch: how many tokens come before the patches. The first is the class "
    "token.",
    "map_axes": "With arch: the order of axes of feature maps, where a trace cannot tell it.",
    "branch": "Which weights to take: online (the student) or momentum (the teacher).",
    "head_act": "The activation function between the head's layers.",
    "trunk_act": "The activation function within a transformer's blocks.",
    "attention_heads": "How many attention heads each block of a transformer has.",
    "stem": "How a ResNet begins: with stride 2 and max pooling (imagenet), with stride 1 and max "
    "pooling (stl10), or with stride 1 and no pooling (cifar).",
    "image_size": "The side of the input images in pixels, if not the family's usual one.",
    "width": "The share of its channels with which a slimmable network runs.",
    "batch_norm": "What to normalise with where the file lacks BatchNorm statistics: those of each "
    "batch (batch), or those of the training images, measured first (recalibrate).",
    "trust": "Names of Python objects that a pickled file may mention, with commas. None of them "
    "is imported or run.",
}
"""What can be declared: the fields of ``layerscope.models.declared.Declared``, and ``trust``."""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(OptionGroup):
    """What a user declares about a checkpoint: an older, hidden option for each key."""

    declare: Annotated[
        list[str] | None,
        network_option(
            metavar="KEY=VALUE[,KEY=VALUE]",
            help=f"What the weights cannot tell, such as stem=cifar,image_size=32. "
            f"Keys: {', '.join(KEYS)}. May be repeated.",
        ),
    ] = None
    family: Annotated[str | None, older_option()] = None
    arch: Annotated[str | None, older_option()] = None
    head_from: Annotated[str | None, older_option()] = None
    prefix_tokens: Annotated[int | None, older_option(min=0)] = None
    map_axes: Annotated[Axes | None, older_option()] = None
    branch: Annotated[Branch | None, older_option()] = None
    head_act: Annotated[Activation | None, older_option()] = None
    trunk_act: Annotated[Activation | None, older_option()] = None
    attention_heads: Annotated[int | None, older_option(min=1)] = None
    stem: Annotated[Stem | None, older_option()] = None
    image_size: Annotated[int | None, older_option(min=1)] = None
    width: Annotated[float | None, older_option(min=0, max=1)] = None
    batch_norm: Annotated[Statistics | None, older_option()] = None
    trust: Annotated[str | None, older_option()] = None

    compact: ClassVar[Compact] = {"declare": {key: key for key in KEYS}}

    def load(self, name: str) -> LoadedModel:
        """Return the network of a checkpoint, by a card's name or a path."""
        from layerscope.models import load
        from layerscope.models.declared import Declared

        trust = [part.strip() for part in (self.trust or "").split(",")]
        declared = Declared(**{field.name: getattr(self, field.name) for field in fields(Declared)})
        return load(name, declared, trust=tuple(filter(None, trust)))

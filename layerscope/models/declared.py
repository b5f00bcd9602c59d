"""What a user declares about a checkpoint, where its weights cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from layerscope.errors import CheckpointError
from layerscope.types import Activation, Axes, Branch, Statistics, Stem

__all__ = ["Activation", "Axes", "Branch", "Declared", "Statistics", "Stem", "declared"]


@dataclass(frozen=True, slots=True)
class Declared:
    """Answers that a file of weights does not hold; None where nothing was declared."""

    family: str | None = None
    """The family, where several fit."""
    arch: str | None = None
    """``package.module:factory`` of the user's own network."""
    head_from: str | None = None
    """With ``arch``: the first module that belongs to the head."""
    prefix_tokens: int | None = None
    """With ``arch``: how many leading tokens (class token, registers) are no patches."""
    map_axes: Axes | None = None
    """With ``arch``: where the channels of a map are, if a trace cannot tell."""
    branch: Branch | None = None
    """Online (student) or momentum (teacher, target) weights."""
    head_act: Activation | None = None
    """Activation between the head's layers."""
    trunk_act: Activation | None = None
    """Activation within a transformer's blocks."""
    attention_heads: int | None = None
    """Number of attention heads of a transformer."""
    stem: Stem | None = None
    """A ResNet's stem: stride 2 and max pooling, stride 1 and none, or stride 1 and max pooling."""
    image_size: int | None = None
    """Side in pixels of the images that the network sees, where not the family's usual one."""
    width: float | None = None
    """The share of its channels that a slimmable network runs with."""
    batch_norm: Statistics | None = None
    """What stands in for BatchNorm statistics that the file does not hold."""

    def given(self) -> dict[str, Any]:
        """Return what was declared, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def over(self, other: Declared) -> Declared:
        """Return these answers, completed by the other's where they say nothing."""
        return Declared(**(other.given() | self.given()))


def declared(table: Mapping[str, Any]) -> Declared:
    """Return the answers of a card's ``[declared]`` table.

    Raises:
        CheckpointError: An entry has another name, type or value than :class:`Declared` knows.
    """
    known = {field.name for field in fields(Declared)}
    for name, value in table.items():
        if name not in known:
            raise CheckpointError(
                f"A card cannot declare {name!r}.", hint=f"Known: {', '.join(sorted(known))}."
            )
        choices = _CHOICES.get(name)
        if choices and value not in choices:
            raise CheckpointError(
                f"{name} cannot be {value!r}.", hint=f"Choose among {', '.join(choices)}."
            )
        if not isinstance(value, _TYPES.get(name, str)) or isinstance(value, bool):
            raise CheckpointError(
                f"{name} cannot be {value!r}, a {type(value).__name__}.",
                hint="See the documentation of cards.",
            )
    return Declared(**table)


_CHOICES: dict[str, tuple[str, ...]] = {
    "branch": get_args(Branch),
    "head_act": get_args(Activation),
    "trunk_act": get_args(Activation),
    "stem": get_args(Stem),
    "batch_norm": get_args(Statistics),
    "map_axes": get_args(Axes),
}
_TYPES: dict[str, Any] = {
    "attention_heads": int,
    "image_size": int,
    "prefix_tokens": int,
    "width": int | float,
}

"""From a name or a path to a network with its cut points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.cards import Card, find_card, read_card
from layerscope.models.cuts import cut_points
from layerscope.models.families import Assembly, families
from layerscope.models.families.layerscope import assemble_untrained
from layerscope.models.weights import read_weights, sha256_of_file, sha256_of_tensors
from layerscope.nouns import Checkpoint, CutPoint, Preprocessing

_TRACE_SIDE = 64


@dataclass(frozen=True)
class LoadedModel:
    """A network with its ordered cut points, its card, and an account of its file's keys."""

    checkpoint: Checkpoint
    module: nn.Module
    cuts: tuple[CutPoint, ...]
    reason: str
    """Why the file was taken for one of its family."""
    keys: Mapping[str, str]
    """By the file's key: the parameter or buffer that it filled."""
    ignored: Mapping[str, str]
    """By the file's key: why it was not used."""


def load(name: str | Path) -> LoadedModel:
    """Return the network of a checkpoint, in eval mode, with its cut points in call order.

    Args:
        name: The name of a card that comes with LayerScope, the path of a card (``.toml``), or the
            path of a file of weights. Beside a file of weights, a card of the same stem is used.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, or fits no known architecture.
        UnknownNameError: There is no card of that name.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return _from_card(read_card(path))
    if path.is_file() or path.suffix or len(path.parts) > 1:
        beside = path.with_suffix(".toml")
        return _from_card(_card_of(path, beside)) if beside.is_file() else _from_file(path)
    return _from_card(find_card(str(name)))


def _card_of(path: Path, beside: Path) -> Card:
    card = read_card(beside)
    if card.weights is None or card.weights.resolve() != path.resolve():
        described = "random weights" if card.weights is None else repr(card.weights.name)
        raise CheckpointError(
            f"The card {str(beside)!r} beside {path.name!r} describes {described}.",
            hint=f"Name the card itself to load that, or rename it to load {path.name!r}.",
        )
    return card


def _from_file(path: Path) -> LoadedModel:
    tensors = read_weights(path)
    family, reason = _recognise(tensors, path)
    assembly = families[family].assemble(tensors)
    checkpoint = Checkpoint(
        name=path.stem,
        family=family,
        architecture=assembly.architecture,
        weights=path,
        sha256=sha256_of_file(path),
        preprocessing=assembly.preprocessing,
        head=assembly.head,
        licence="",
        citation="",
    )
    return _loaded(checkpoint, assembly, reason)


def _from_card(card: Card) -> LoadedModel:
    if card.weights is None:
        assembly = assemble_untrained(card.architecture, card.seed or 0)
        return _described(card, assembly, sha256_of_tensors(assembly.module.state_dict()))
    tensors = read_weights(card.weights)
    digest = sha256_of_file(card.weights)
    if card.sha256 and digest != card.sha256:
        raise CheckpointError(
            f"{card.weights.name} is not the file that its card {card.path.name} describes: "
            f"its sha256 is {digest[:12]}…, the card says {card.sha256[:12]}….",
            hint="Fetch the weights again, or mend the card.",
        )
    return _described(card, families[card.family].assemble(tensors), digest)


def _described(card: Card, assembly: Assembly, digest: str) -> LoadedModel:
    checkpoint = Checkpoint(
        name=card.name,
        family=card.family,
        architecture=assembly.architecture,
        weights=card.weights,
        sha256=digest,
        preprocessing=card.preprocessing or assembly.preprocessing,
        head=assembly.head,
        licence=card.licence,
        citation=card.citation,
        seed=card.seed,
        description=card.description,
    )
    return _loaded(checkpoint, assembly, f"its card {card.path.name} says so")


def _loaded(checkpoint: Checkpoint, assembly: Assembly, reason: str) -> LoadedModel:
    assembly.module.eval()
    return LoadedModel(
        checkpoint=checkpoint,
        module=assembly.module,
        cuts=cut_points(assembly.module, assembly.stops, _side(checkpoint.preprocessing)),
        reason=reason,
        keys=assembly.keys,
        ignored=assembly.ignored,
    )


def _side(preprocessing: Preprocessing) -> int:
    side = preprocessing.crop or preprocessing.resize
    return side if isinstance(side, int) else max(side) if side else _TRACE_SIDE


def _recognise(tensors: Mapping[str, Tensor], path: Path) -> tuple[str, str]:
    for name, family in families.items():
        if reason := family.recognise(tensors):
            return name, reason
    raise CheckpointError(
        f"{path.name} fits no known family; its first keys are {', '.join(sorted(tensors)[:4])}.",
        hint=f"Known families: {', '.join(families.names())}.",
    )

"""From a name or a path to a network with its cut points, in three stages.

1. Read: the tensors and plain values of a file, as ``Contents`` (``files``).
2. Recognise: the family, why, and the network's parts, as ``Recognised`` (``recognition``).
3. Build: the network, filled strictly, with its stops, as ``Assembly`` (``assembly``).

A traced forward then turns the stops into the cut points of a ``LoadedModel``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.assembly import Assembly, put_together
from layerscope.models.cards import CheckpointCard, card_names, find_card, read_card
from layerscope.models.contents import Contents
from layerscope.models.cuts import Call, cut_points, numbered, trace
from layerscope.models.declared import Declared
from layerscope.models.files.weights import read_contents, sha256_of_file, sha256_of_tensors
from layerscope.models.own import ASSUMED, ASSUMED_TIMM, OwnNetwork, build_own
from layerscope.models.preprocessing import at_size
from layerscope.models.recognition import Recognised, recognise
from layerscope.models.untrained_network import assemble_untrained
from layerscope.types import Checkpoint, CutPoint, Preprocessing

_TRACE_SIDE = 64


@dataclass(frozen=True)
class LoadedModel:
    """A network with its ordered cut points, its card, and an account of its file's keys."""

    checkpoint: Checkpoint
    module: nn.Module
    cuts: tuple[CutPoint, ...]
    """The canonical ones, in call order, each with its usual pooling."""
    reason: str
    """Why the file was taken for one of its family."""
    keys: Mapping[str, str]
    """By the file's key: the parameter or buffer that it filled."""
    ignored: Mapping[str, str]
    """By the file's key: why it was not used."""
    more: tuple[CutPoint, ...] = ()
    """Cut points that are off by default: L2 norms, predictors, prototypes, logits."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""
    uncalibrated: tuple[str, ...] = ()
    """BatchNorm modules for which the file holds no statistics."""
    calls: tuple[Call, ...] = ()
    """Every module call of a traced forward, in the order in which the calls return."""
    side: int = 0
    """Side of the images that the forward was traced with, in pixels."""


def load(
    name: str | Path, declared: Declared | None = None, *, trust: Sequence[str] = ()
) -> LoadedModel:
    """Return the network of a checkpoint, in eval mode, with its cut points in call order.

    Args:
        name: As :func:`layerscope.models.load` takes it, but of no baseline.
        declared: What the weights cannot tell; it takes precedence over a card's declarations.
        trust: Dotted names of Python objects that a pickle may mention.

    Raises:
        CheckpointError: The file is missing, damaged, holds code, or fits no known architecture.
        UnknownNameError: There is no card of that name.
    """
    asked = declared or Declared()
    if str(name).startswith("hf://"):
        from layerscope.models.files.hub import fetch_from_hub

        return _from_file(fetch_from_hub(str(name)), asked, trust)
    path = Path(name)
    if path.suffix == ".toml":
        return _from_card(read_card(path), asked, trust)
    folder = path.is_dir() and str(name) not in card_names()
    if folder or path.is_file() or path.suffix or len(path.parts) > 1:
        beside = path.with_suffix(".toml") if path.name else None
        if beside is not None and beside.is_file():
            return _from_card(_card_of(path, beside), asked, trust)
        return _from_file(path, asked, trust)
    return _from_card(find_card(str(name)), asked, trust)


def _card_of(path: Path, beside: Path) -> CheckpointCard:
    card = read_card(beside)
    if card.weights is None or card.weights.resolve() != path.resolve():
        described = "random weights" if card.weights is None else repr(card.weights.name)
        raise CheckpointError(
            f"The card {str(beside)!r} beside {path.name!r} describes {described}.",
            hint=f"Name the card itself to load that, or rename it to load {path.name!r}.",
        )
    return card


def _from_file(path: Path, declared: Declared, trust: Sequence[str]) -> LoadedModel:
    contents = read_contents(path, trust=trust)
    recognised = recognise(contents, declared)
    assembly = _build(recognised, contents, declared)
    checkpoint = Checkpoint(
        name=_name_with_choices(_stem(path), declared),
        family=recognised.family,
        architecture=assembly.architecture,
        weights=path,
        sha256=sha256_of_file(path),
        preprocessing=assembly.preprocessing,
        head=assembly.head,
        licence="",
        citation="",
        declared=declared.given(),
    )
    return trace_cuts(checkpoint, assembly, recognised.reason)


def _from_card(card: CheckpointCard, declared: Declared, trust: Sequence[str]) -> LoadedModel:
    weights = card.weights
    if weights is None:
        # Its seed tells all: nothing that could be declared would change a random network.
        assembly = assemble_untrained(card.architecture, card.seed or 0)
        digest = sha256_of_tensors(assembly.module.state_dict())
        return _model_of_card(card, assembly, digest, Declared())
    if card.preprocessing is not None and declared.image_size is not None:
        card = replace(card, preprocessing=at_size(card.preprocessing, declared.image_size))
    card = replace(card, name=_name_with_choices(card.name, declared))
    declared = declared.over(card.declared)
    contents = read_contents(weights, trust=trust)
    digest = sha256_of_file(weights)
    if card.sha256 and digest != card.sha256:
        raise CheckpointError(
            f"{weights.name} is not the file that its card {card.path.name} describes: "
            f"its sha256 is {digest[:12]}…, the card says {card.sha256[:12]}….",
            hint="Fetch the weights again, or mend the card.",
        )
    crop = None if card.preprocessing is None else card.preprocessing.crop
    asked = declared.over(Declared(family=card.family, image_size=crop))
    recognised = recognise(contents, asked)
    assembly = _build(recognised, contents, asked)
    if card.preprocessing is not None:
        notes = tuple(note for note in assembly.notes if note not in (ASSUMED, ASSUMED_TIMM))
        assembly = replace(assembly, notes=notes)
    return _model_of_card(replace(card, family=recognised.family), assembly, digest, declared)


def _model_of_card(
    card: CheckpointCard, assembly: Assembly, digest: str, declared: Declared
) -> LoadedModel:
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
        declared=declared.given(),
    )
    return trace_cuts(checkpoint, assembly, f"its card {card.path.name} says so")


def assemble(contents: Contents, declared: Declared) -> Assembly:
    """Return the network of a file's contents: the second and third stage in one call.

    Raises:
        CheckpointError: No family fits, several do, or the one that was declared does not.
    """
    return _build(recognise(contents, declared), contents, declared)


def _build(recognised: Recognised, contents: Contents, declared: Declared) -> Assembly:
    with torch.random.fork_rng(devices=[]):  # a network is initialised before it is filled
        if isinstance(recognised.parts, OwnNetwork):
            assembly = build_own(recognised.parts, contents, declared)
        else:
            assembly = put_together(recognised.parts, contents, declared)
    _check_width(assembly, declared)
    return assembly


def _check_width(assembly: Assembly, declared: Declared) -> None:
    # The width becomes part of the checkpoint's name, under which its numbers are kept.
    if declared.width is not None and "width_multiplier" not in assembly.architecture:
        raise CheckpointError(
            f"The network has one width, so --declare width={declared.width:g} chooses nothing.",
            hint="Declare no width: it is for slimmable networks, such as US3L's.",
        )


def trace_cuts(checkpoint: Checkpoint, assembly: Assembly, reason: str) -> LoadedModel:
    """Return an assembled network with the cut points that a traced forward finds.

    Raises:
        CheckpointError: The network does not run on the images of its preprocessing.
    """
    assembly.module.eval()
    side = _side(checkpoint.preprocessing)
    calls = _trace_network(assembly.module, side, checkpoint.name)
    points = cut_points(calls, assembly.stops)
    canonical = {stop.name for stop in assembly.stops if stop.canonical}
    return LoadedModel(
        checkpoint=checkpoint,
        module=assembly.module,
        cuts=numbered([point for point in points if point.name in canonical]),
        more=tuple(point for point in points if point.name not in canonical),
        reason=reason,
        keys=assembly.keys,
        ignored=assembly.ignored,
        notes=assembly.notes,
        uncalibrated=assembly.uncalibrated,
        calls=tuple(calls),
        side=side,
    )


def _trace_network(network: nn.Module, side: int, name: str) -> list[Call]:
    try:
        return trace(network, side)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().split("\n", 1)[0].rstrip(".")
        raise CheckpointError(
            f"The network of {name} does not run on images of {side} × {side}: {reason}.",
            hint="Its weights do not fit one another, or not that side: declare image_size.",
        ) from error


def _stem(path: Path) -> str:
    return path.name.split(".", 1)[0] if path.name.endswith(".pth.tar") else path.stem


def _name_with_choices(name: str, declared: Declared) -> str:
    """Return the name with what was chosen of several networks that one file holds.

    What the file does not tell, such as an activation, has one right answer and is no choice.
    """
    forms = {
        "branch": "{}",
        "width": "width{:g}",
        "image_size": "{}px",
        "batch_norm": "{}-norm",
    }
    given = declared.given()
    chosen = [form.format(given[choice]) for choice, form in forms.items() if choice in given]
    return "+".join([name, *chosen])


def _side(preprocessing: Preprocessing) -> int:
    side = preprocessing.crop or preprocessing.resize
    return side if isinstance(side, int) else max(side) if side else _TRACE_SIDE

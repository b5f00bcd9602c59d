"""Cards: a checkpoint described in a dozen lines of TOML beside its weights."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models.declared import Declared, declared
from layerscope.types import Preprocessing


@dataclass(frozen=True, slots=True)
class CheckpointCard:
    """What a card says, before any weights are read."""

    name: str
    path: Path
    family: str
    weights: Path | None
    seed: int | None
    """Seed of random weights; None where ``weights`` names a file."""
    sha256: str
    architecture: Mapping[str, Any]
    preprocessing: Preprocessing | None
    licence: str
    citation: str
    description: str
    declared: Declared


def card_folder() -> Path:
    """Return the folder of the cards that come with LayerScope."""
    installed = Path(__file__).parents[1] / "checkpoints"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "checkpoints"


def card_names() -> tuple[str, ...]:
    """Return the names of the cards that come with LayerScope."""
    return tuple(sorted(path.stem for path in card_folder().glob("*.toml")))


def find_card(name: str) -> CheckpointCard:
    """Return a card by its name.

    Raises:
        UnknownNameError: LayerScope comes with no card of that name.
        CheckpointError: The card is not usable.
    """
    path = card_folder() / f"{name}.toml"
    if not path.is_file():
        raise UnknownNameError("checkpoint", name, card_names())
    return read_card(path)


def read_card(path: Path) -> CheckpointCard:
    """Return the card in a TOML file.

    Raises:
        CheckpointError: The file is missing, is not TOML or lacks what a card needs.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return _card(content, path)
    except FileNotFoundError:
        raise CheckpointError(f"There is no card {str(path)!r}.", hint="Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"The card {str(path)!r} is not TOML: {error}.", hint="Mend the line that it names."
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The card {str(path)!r} is incomplete: {error}.",
            hint="A card needs family, weights (a file) or seed, and a [preprocessing] table.",
        ) from error


def _card(content: Mapping[str, Any], path: Path) -> CheckpointCard:
    weights = content.get("weights")
    if weights is None and "seed" not in content:
        raise KeyError("neither weights nor seed")
    answers = declared(content.get("declared", {}))
    return CheckpointCard(
        name=str(content.get("name", path.stem)),
        path=path,
        family=str(content["family"] if answers.arch is None else content.get("family", "own")),
        weights=None if weights is None else path.parent / str(weights),
        seed=None if weights is not None else int(content["seed"]),
        sha256=str(content.get("sha256", "")),
        architecture=dict(content.get("architecture", {})),
        preprocessing=_preprocessing(content.get("preprocessing")),
        licence=str(content.get("licence", "")),
        citation=str(content.get("citation", "")),
        description=str(content.get("description", "")),
        declared=answers,
    )


def _preprocessing(table: Mapping[str, Any] | None) -> Preprocessing | None:
    if table is None:
        return None
    resize, crop = table.get("resize"), table.get("crop")
    return Preprocessing(
        resize=tuple(resize) if isinstance(resize, list) else resize,
        crop=crop,
        mean=tuple(table["mean"]),
        std=tuple(table["std"]),
        interpolation=table.get("interpolation", "bilinear"),
    )

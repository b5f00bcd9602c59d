"""``layerscope cuts``: the ordered table of a checkpoint's cut points."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import terminal

if TYPE_CHECKING:
    from layerscope.models import LoadedModel


def command(
    checkpoint: Annotated[
        str, typer.Argument(help="A card's name, or the path of a card or of a file of weights.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print where a network can be cut, in call order, and what of its file was used.

    \b
    Examples:
      layerscope cuts simclr-objects3d
      layerscope cuts resnet50.pth --json
    """
    from layerscope.models import load

    model = load(checkpoint)
    terminal.emit(_data(model), as_json, lambda: _text(model))


def _data(model: LoadedModel) -> dict[str, Any]:
    checkpoint = model.checkpoint
    return {
        "checkpoint": checkpoint.name,
        "family": checkpoint.family,
        "reason": model.reason,
        "architecture": dict(checkpoint.architecture),
        "head": checkpoint.head,
        "sha256": checkpoint.sha256,
        "preprocessing": asdict(checkpoint.preprocessing),
        "cuts": [asdict(cut) for cut in model.cuts],
        "keys": dict(model.keys),
        "ignored": dict(model.ignored),
    }


def _text(model: LoadedModel) -> str:
    checkpoint = model.checkpoint
    rows = [
        (str(c.index), c.name, c.module, c.part, str(c.width), c.pooling, f"{c.depth:.2f}")
        for c in model.cuts
    ]
    header = ("#", "cut", "module", "part", "width", "pooling", "depth")
    lines = [
        f"{checkpoint.name}: {checkpoint.family}, because {model.reason}",
        f"head: {checkpoint.head}",
        f"{len(model.keys)} tensors used, {len(model.ignored)} ignored, 0 missing"
        if model.keys
        else f"random weights from seed {checkpoint.seed}",
    ]
    if all(cut.part == "trunk" for cut in model.cuts):
        lines.append("The file holds no head, so the drop behind the trunk cannot be seen.")
    return "\n".join([*lines, "", terminal.table(header, rows, right=(0, 4, 6))])

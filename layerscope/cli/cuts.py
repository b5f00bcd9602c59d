"""``layerscope cuts``: the ordered table of a checkpoint's cut points, and what of it was used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import running, terminal
from layerscope.cli.checkpoint import CheckpointName, CheckpointOptions
from layerscope.cli.options import Json, grouped

if TYPE_CHECKING:
    from layerscope.models import LoadedModel
    from layerscope.types import CutPoint, Preprocessing

NO_HEAD = "The file holds no head, so the drop behind the trunk cannot be seen."


@grouped
def command(
    checkpoint: CheckpointName,
    network: CheckpointOptions,
    cuts: running.Cuts = None,
    pooling: running.Pooling = None,
    keys: Annotated[
        bool,
        typer.Option("--keys", help="List every key of the file, and how it was used or why not."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print where a network can be cut, in call order, and what of its file was used.

    Every key of the file is either used or ignored for a reason; a trunk or head that the file
    does not fill is an error.

    \b
    Examples:
      layerscope cuts simclr-objects3d
      layerscope cuts resnet50.pth --keys
      layerscope cuts checkpoint.pth.tar --declare branch=momentum --cuts '-4:' --pooling mean,max
      layerscope cuts mine.pth --declare arch=nets:resnet_with_head,head_from=projector --json
    """
    from layerscope.models import select_cuts

    model = network.load(checkpoint)
    chosen = select_cuts(model, cuts, pooling)
    terminal.emit(_data(model, chosen), as_json, lambda: _format(model, chosen, keys))


def _data(model: LoadedModel, chosen: Sequence[CutPoint]) -> dict[str, Any]:
    checkpoint = model.checkpoint
    return {
        "checkpoint": checkpoint.name,
        "family": checkpoint.family,
        "reason": model.reason,
        "architecture": dict(checkpoint.architecture),
        "head": checkpoint.head,
        "has_head": _has_head(model),
        "sha256": checkpoint.sha256,
        "declared": dict(checkpoint.declared),
        "preprocessing": asdict(checkpoint.preprocessing),
        "cuts": [asdict(cut) for cut in chosen],
        "more": [asdict(cut) for cut in model.more],
        "notes": list(model.notes),
        "uncalibrated": list(model.uncalibrated),
        "keys": dict(model.keys),
        "ignored": dict(model.ignored),
        "missing": [],  # a network that its file does not fill is not loaded
    }


def _format(model: LoadedModel, chosen: Sequence[CutPoint], keys: bool) -> str:
    sections = [_facts(model), _table(chosen)]
    if model.more:
        sections += ["Off by default, chosen with --cuts:\n" + _table(model.more, numbered=False)]
    notes = "\n".join(f"Note: {note}" for note in model.notes)
    return "\n\n".join(filter(None, [*sections, notes, _account(model, keys)]))


def _facts(model: LoadedModel) -> str:
    checkpoint = model.checkpoint
    lines = [
        f"{checkpoint.name}: {checkpoint.family}, because {model.reason}",
        f"architecture: {_join(checkpoint.architecture)}",
        f"head: {checkpoint.head}",
        f"images: {_images(checkpoint.preprocessing)}",
    ]
    if checkpoint.declared:
        lines.append(f"declared: {_join(checkpoint.declared)}")
    headless = checkpoint.baseline != "pixels" and not _has_head(model)
    return "\n".join([*lines, NO_HEAD] if headless else lines)


def _has_head(model: LoadedModel) -> bool:
    return any(cut.part == "head" for cut in (*model.cuts, *model.more))


def _join(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _images(preprocessing: Preprocessing) -> str:
    resize, crop = preprocessing.resize, preprocessing.crop
    steps = [f"resized to {resize} pixels, {preprocessing.interpolation}"] if resize else []
    steps += [f"centre crop {crop}"] if crop else []
    return "; ".join([*steps, f"mean {preprocessing.mean}, deviation {preprocessing.std}"])


def _table(cuts: Sequence[CutPoint], numbered: bool = True) -> str:
    rows = [
        (str(c.index), c.name, c.module, c.part, str(c.width), c.pooling, f"{c.depth:.2f}")
        for c in cuts
    ]
    header = ("#", "cut", "module", "part", "width", "pooling", "depth")
    if numbered:
        return terminal.table(header, rows, right=(0, 4, 6))
    return terminal.table(header[1:-1], [row[1:-1] for row in rows], right=(3,))


def _account(model: LoadedModel, keys: bool) -> str:
    """Return how many keys of the file were used, ignored and missing, or all of them."""
    if model.checkpoint.baseline == "pixels":
        return "no weights"
    if not model.keys:
        return f"random weights from seed {model.checkpoint.seed}"
    lines = [f"{len(model.keys)} keys used, {len(model.ignored)} ignored, 0 missing"]
    if keys:
        lines += [f"  used     {key} → {own}" for key, own in model.keys.items()]
        lines += [f"  ignored  {key}: {reason}" for key, reason in model.ignored.items()]
        return "\n".join(lines)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for key, reason in model.ignored.items():
        by_reason[reason].append(key)
    for reason, names in by_reason.items():
        shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        lines.append(f"  ignored {len(names)}, {reason}: {shown}")
    return "\n".join([*lines, "  (every key: --keys)"])

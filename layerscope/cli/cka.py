"""``layerscope cka``: how alike layers arrange the same images."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli import settings, terminal
from layerscope.errors import SettingsError
from layerscope.types import Split

if TYPE_CHECKING:
    from layerscope.probing.layer_cka import LayerCka

MOST = 2
"""Caches: one with itself, or two with each other."""


def command(
    caches: Annotated[
        list[Path],
        typer.Argument(metavar="CACHE [OTHER]", help="One cache, or two of the same source."),
    ],
    split: Annotated[Split, typer.Option("--split", help="Whose images.")] = "test",
    images: Annotated[
        int, typer.Option("--images", min=4, help="At most so many, evenly spaced.")
    ] = 4096,
    biased: Annotated[
        bool, typer.Option("--biased", help="Print and draw the biased estimate.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the heat map; none is drawn without."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: both estimates.")] = False,
) -> None:
    """Compare all pairs of layers of one checkpoint, or of two, by linear CKA.

    1 is the same arrangement of the images up to rotation and scale. The unbiased estimate is
    about 0 for unrelated layers; the biased one tends to 1 where features outnumber images.

    \b
    Examples:
      layerscope cka features/net@in1k.h5
      layerscope cka features/net@in1k.h5 features/other@in1k.h5 -o report/
      layerscope cka features/net@in1k.h5 --split val --images 1000 --json
    """
    from layerscope.cache import find_caches, open_cache
    from layerscope.probing.layer_cka import layer_cka

    paths = [found for path in caches for found in find_caches(path)]
    if len(paths) > MOST:
        raise SettingsError(
            f"{len(paths)} caches were given, and CKA compares one with itself or two.",
            hint="Name one or two files.",
        )
    with ExitStack() as stack:
        opened = [stack.enter_context(open_cache(path)) for path in paths]
        found = layer_cka(*opened, split=split, images=images)
    if output is not None:
        _draw(found, output, biased)
        values = {"caches": paths, "split": split, "images": images, "biased": biased}
        settings.write(output / "settings.json", "cka", {**values, "output": output})
    terminal.emit(found.record(), as_json, lambda: _text(found, biased))


def _draw(found: LayerCka, output: Path, biased: bool) -> None:
    from layerscope.report.cka_map import similarity_map
    from layerscope.report.style import save

    kind, values = ("Biased", found.biased) if biased else ("Unbiased", found.unbiased)
    heading = f"{kind} linear CKA of {found.images:,} {found.split} images of {found.source}"
    figure = similarity_map(values, found.cuts, found.checkpoints, heading)
    one, other = found.checkpoints
    name = f"cka-{one}" if one == other else f"cka-{one}-{other}"
    png, _ = save(figure, output / name.replace("/", "-"))
    terminal.say(f"The heat map is {png}.")


def _text(found: LayerCka, biased: bool) -> str:
    values = found.biased if biased else found.unbiased
    rows, columns = found.cuts
    lines = [
        (cut.key, *("" if math.isnan(one) else f"{one:.2f}" for one in of_cut))
        for cut, of_cut in zip(rows, values.tolist(), strict=True)
    ]
    one, other = found.checkpoints
    corner = one if one == other else f"{one} \\ {other}"
    header = (corner, *(cut.key for cut in columns))
    table = terminal.table(header, lines, right=range(1, len(header)))
    kind = "Biased" if biased else "Unbiased"
    return f"{table}\n{kind} linear CKA of {found.images:,} {found.split} images."

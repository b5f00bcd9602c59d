"""``layerscope cka``: how alike layers arrange the same images."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli import settings, terminal
from layerscope.cli.options import Json
from layerscope.errors import SettingsError
from layerscope.types import Split

if TYPE_CHECKING:
    from layerscope.results.layer_cka import LayerCka

MOST = 2
"""Caches: one with itself, or two with each other."""


def command(
    caches: Annotated[
        list[Path],
        typer.Argument(
            metavar="CACHE [OTHER]",
            help="One cache, whose layers are compared with each other, or two of the same images.",
        ),
    ],
    split: Annotated[Split, typer.Option(help="The split whose images are compared.")] = "test",
    images: Annotated[
        int, typer.Option(min=4, help="Take at most this many images, evenly spaced.")
    ] = 4096,
    biased: Annotated[
        bool, typer.Option("--biased", help="Print and draw the biased estimate instead.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The folder of results: the values are kept there for layerscope report, and a "
            "heat map is drawn; without it neither is.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare all pairs of layers of one checkpoint, or of two, by linear CKA.

    1 is the same arrangement of the images up to rotation and scale. The unbiased estimate is
    about 0 for unrelated layers; the biased one tends to 1 where features outnumber images.

    \b
    Examples:
      layerscope cka features/net@in1k.h5
      layerscope cka features/net@in1k.h5 features/other@in1k.h5 -o results/
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
    from layerscope.results.layer_cka import keep_similarity

    keep_similarity(output, found)
    png, _ = save(similarity_map(found, biased=biased), output / f"cka-{found.name}")
    terminal.say(f"The heat map is {png}.")


def _text(found: LayerCka, biased: bool) -> str:
    from layerscope.report.sections.cka import similarity_table

    table = similarity_table(found, biased=biased)
    rows = terminal.table(table.header, table.rows, right=tuple(table.numbers))
    kind = "Biased" if biased else "Unbiased"
    return f"{rows}\n{kind} linear CKA of {found.images:,} {found.split} images."

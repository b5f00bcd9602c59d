"""``layerscope pack``: the images of a source in one file, which is read in one long go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from layerscope.cli import sources, terminal
from layerscope.cli.options import Json
from layerscope.errors import FINDINGS

if TYPE_CHECKING:
    from layerscope.data.betons import PackReport

Mode = Literal["jpeg", "raw"]
Filter = Literal["bilinear", "bicubic"]


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME=PATH[,OPTION=VALUE]", help="The images to pack, as for --data of extract."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.beton", help="The file to write.")
    ],
    mode: Annotated[
        Mode, typer.Option(help="JPEG files, or raw pixels: larger, and nothing to decode.")
    ] = "jpeg",
    side: Annotated[
        int | None,
        typer.Option(min=1, help="Make images smaller: the length of their shorter side."),
    ] = None,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="The quality of JPEG images that are made anew.")
    ] = 95,
    interpolation: Annotated[
        Filter, typer.Option(help="The filter that makes images smaller.")
    ] = "bilinear",
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many threads, if not one for each processor.")
    ] = None,
    skip_bad_images: Annotated[
        bool,
        typer.Option("--skip-bad-images", help="Leave the place of an unreadable image empty."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Pack a source into one file in FFCV's format, with its splits and targets beside it.

    Without --side ordinary JPEG files go in byte for byte and other images as pixels, so that the
    features are those of the folder. With it, images are made smaller and encoded anew: reading is
    several times as fast, and features differ a little; layerscope check preprocessing says by how
    much. FFCV is not needed to pack, nor to read the file with the default loader.

    \b
    Examples:
      layerscope pack objects3d=data/objects3d -o objects3d.beton
      layerscope pack in1k=imagenet/ -o in1k.beton --side 256
      layerscope pack clevr=CLEVR_v1.0 -o clevr.beton --side 224 --mode raw
    """
    from layerscope.data.betons import pack

    opened = sources.open_pair(source, allow_missing=skip_bad_images)
    with terminal.progress(f"pack {opened.name}", len(opened.ids), "images") as advance:
        report = pack(
            opened,
            output,
            mode=mode,
            side=side,
            quality=quality,
            interpolation=interpolation,
            workers=workers,
            skip_bad=skip_bad_images,
            progress=advance,
        )
    for bad in report.bad:
        terminal.say(f"Skipped row {bad.row}, {bad.id}: {bad.reason}")
    bad_rows = [bad._asdict() for bad in report.bad]
    record = asdict(report) | {"path": str(report.path), "bad": bad_rows}
    terminal.emit(record, as_json, lambda: _format(report, opened.name))
    if report.bad:
        raise typer.Exit(FINDINGS)


def _format(report: PackReport, name: str) -> str:
    parts = (
        (report.passed, "JPEG files as they were"),
        (report.encoded, "encoded anew"),
        (report.raw, "as pixels"),
        (len(report.bad), "unreadable"),
    )
    made = ", ".join(f"{count:,} {what}" for count, what in parts if count)
    lines = [f"{report.path}: {report.rows:,} images, {terminal.size(report.size)}: {made}."]
    if report.small:
        lines.append(f"{report.small:,} are smaller than the side asked for; none was enlarged.")
    return "\n".join([*lines, f"Use it as --data {name}={report.path}."])

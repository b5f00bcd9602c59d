"""``layerscope render``: the rendered 3D data set, every latent of which is known."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import settings, terminal
from layerscope.cli.options import Json, compute_option, keep_option, read_option

if TYPE_CHECKING:
    from layerscope.render import RenderSettings


render_option = partial(typer.Option, rich_help_panel="What to render")


def command(
    context: typer.Context,
    output: Annotated[
        Path, keep_option("--output", "-o", help="The folder for the images and their latents.")
    ],
    objects: Annotated[int, render_option(min=1, help="How many objects are rendered.")] = 400,
    views: Annotated[int, render_option(min=1, help="How many images of each object.")] = 50,
    size: Annotated[int, render_option(min=16, help="The side of an image in pixels.")] = 128,
    seed: Annotated[int, render_option(min=0, help="Decides everything that is random.")] = 0,
    renderer: Annotated[
        str, render_option(help="What draws the images: mitsuba, or blender as in the paper.")
    ] = "mitsuba",
    samples: Annotated[
        int, render_option(min=1, help="How often a pixel is sampled; blender wants 64 or more.")
    ] = 9,
    meshes: Annotated[
        Path | None,
        read_option(help="A folder of .obj, .ply, .glb and .stl files, a subfolder a category."),
    ] = None,
    workers: Annotated[
        int | None, compute_option(min=1, help="How many processes render, if not one a processor.")
    ] = None,
    dry_run: Annotated[
        bool, keep_option("--dry-run", help="Print what would be written, and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Render objects on a floor under a coloured spot, with all seven latents known.

    Images, their latents (latents.csv), a record of how they were made (dataset.json) and a
    contact sheet (preview.png) are written. Repeating the command goes on where it stopped. The
    same seed gives the same latents, and with one renderer and version the same pixels.

    \b
    Examples:
      layerscope render -o data/objects3d
      layerscope render -o data/small --objects 32 --views 10 --size 64
      layerscope render -o data/mine --meshes my-meshes/ --seed 1
      layerscope render -o data/cycles --renderer blender --samples 64
      layerscope render -o data/objects3d --dry-run --json
    """
    from layerscope.render import RenderSettings, plan

    chosen = RenderSettings(objects, views, size, seed, renderer, samples, meshes)
    planned = plan(chosen)
    result = {"path": str(output), **asdict(planned)}
    if not dry_run:
        _render(output, chosen, planned.images, workers)
        settings.write(output / "settings.json", "render", context.params)
        files = (file for file in output.rglob("*") if file.is_file())
        result["bytes"] = sum(file.stat().st_size for file in files)
    terminal.emit(result | {"dry_run": dry_run}, as_json, lambda: _format(result, dry_run))


def _render(output: Path, chosen: RenderSettings, images: int, workers: int | None) -> None:
    from layerscope.render import render_dataset

    with terminal.progress("Rendering", images, "images") as advance:
        shown = 0

        def progress(done: int, _total: int) -> None:
            nonlocal shown
            advance(done - shown)
            shown = done

        render_dataset(output, chosen, workers=workers, progress=progress)


def _format(result: dict[str, Any], dry_run: bool) -> str:
    about = "about " if dry_run else ""
    rows = [
        ("folder", result["path"]),
        ("objects", f"{result['objects']:,} in {len(result['categories'])} categories"),
        ("images", f"{result['images']:,}"),
        *((f"  {split}", f"{count:,}") for split, count in result["splits"].items()),
        ("size", f"{about}{result['bytes'] / 1e6:,.1f} MB"),
    ]
    head = "Would render" if dry_run else "Rendered"
    return terminal.table((head, ""), rows)

"""``layerscope render``: the rendered 3D data set, every latent of which is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import settings, terminal

if TYPE_CHECKING:
    from layerscope.render import RenderSettings


def command(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to.")],
    objects: Annotated[int, typer.Option("--objects", min=1, help="Number of objects.")] = 400,
    views: Annotated[int, typer.Option("--views", min=1, help="Images of each object.")] = 50,
    size: Annotated[int, typer.Option("--size", min=16, help="Side of an image in pixels.")] = 128,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides all that is random.")] = 0,
    renderer: Annotated[
        str, typer.Option("--renderer", help="mitsuba, or blender (the paper's).")
    ] = "mitsuba",
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="For each pixel; blender wants 64 or more.")
    ] = 9,
    meshes: Annotated[
        Path | None,
        typer.Option(
            "--meshes",
            metavar="DIR",
            help="Your own .obj, .ply, .glb and .stl files, one subfolder for each category.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes; by default one for each processor."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
    result: dict[str, Any] = {
        "path": str(output),
        "objects": planned.objects,
        "images": planned.images,
        "bytes": planned.bytes,
        "categories": planned.categories,
        "splits": planned.splits,
    }
    if not dry_run:
        _render(output, chosen, planned.images, workers)
        settings.write(output / "settings.json", "render", context.params)
        result["bytes"] = _bytes(output)
    terminal.emit(result | {"dry_run": dry_run}, as_json, lambda: _text(result, dry_run))


def _render(output: Path, chosen: RenderSettings, images: int, workers: int | None) -> None:
    from layerscope.render import render_dataset

    with terminal.progress("Rendering", images, "images") as advance:
        shown = 0

        def progress(done: int, _total: int) -> None:
            nonlocal shown
            advance(done - shown)
            shown = done

        render_dataset(output, chosen, workers=workers, progress=progress)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _text(result: dict[str, Any], dry_run: bool) -> str:
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

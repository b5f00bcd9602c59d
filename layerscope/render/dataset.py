"""Renders a whole data set, or what is missing of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from layerscope.errors import SettingsError
from layerscope.render.catalogue import catalogue
from layerscope.render.files import png, write_whole
from layerscope.render.manifest import check_agreement, manifest, write_manifest
from layerscope.render.preview import contact_sheet
from layerscope.render.renderer import Renderer, renderers
from layerscope.render.settings import RenderSettings
from layerscope.render.table import ImageRow, as_csv, table
from layerscope.render.workers import RenderJob, render_jobs
from layerscope.rendered_set import TABLE
from layerscope.runtime.cpus import processors

Progress = Callable[[int, int], None]

VIEWS_AT_ONCE = 10
"""Views in one job: enough to make up for building the object, few enough to hear Ctrl-C soon."""


def render_dataset(
    out: Path,
    settings: RenderSettings,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Render a data set into a folder; a broken-off run continues where it stopped.

    Args:
        out: Folder to hold ``images/``, ``latents.csv``, ``dataset.json`` and ``preview.png``.
        settings: What to render; a folder that holds something else is refused.
        workers: Processes to render in, by default one for each processor. The pixels do not
            depend on it.
        progress: Called with the number of finished images and of all images.

    Returns:
        The folder.

    Raises:
        RenderError: The renderer is not there or failed, or the folder holds another data set.
        DiskError: The disk is full; finished images are kept.
        UnknownNameError: There is no such renderer.
    """
    if workers is not None and workers < 1:
        raise SettingsError(f"The number of workers is {workers}.", hint="It must be at least 1.")
    out = Path(out)
    renderer = renderers[settings.renderer]()
    instances = catalogue(settings)
    rows = table(instances, settings)
    record = manifest(settings, rows, renderer.version())
    check_agreement(out, record)
    write_manifest(out, record, complete=False)
    write_whole(out / TABLE, as_csv(rows))
    if not (out / "preview.png").exists():
        write_whole(out / "preview.png", png(contact_sheet(instances, settings, renderer)))
    _render_missing(out, settings, rows, renderer, workers or len(processors()), progress)
    write_manifest(out, record, complete=True)
    return out


def _render_missing(
    out: Path,
    settings: RenderSettings,
    rows: Sequence[ImageRow],
    renderer: Renderer,
    workers: int,
    progress: Progress | None,
) -> None:
    missing = [row for row in rows if not (out / row.image).exists()]
    done = len(rows) - len(missing)
    if progress is not None:
        progress(done, len(rows))
    for count in render_jobs(_jobs(out, missing), settings, renderer, workers):
        done += count
        if progress is not None:
            progress(done, len(rows))


def _jobs(out: Path, rows: Sequence[ImageRow]) -> list[RenderJob]:
    groups = groupby(rows, key=lambda row: (row.instance, row.view // VIEWS_AT_ONCE))
    return [
        RenderJob(instance, tuple((row.view, row.latents, out / row.image) for row in views))
        for (instance, _), views in groups
    ]

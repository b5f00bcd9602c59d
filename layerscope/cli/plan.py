"""``layerscope plan``: what an extraction would take in disk, memory and time, before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import running, sources, terminal
from layerscope.cli.checkpoint import CheckpointOptions
from layerscope.cli.options import Json, compute_option, grouped
from layerscope.errors import FINDINGS

if TYPE_CHECKING:
    from layerscope.extraction.job import ExtractJob
    from layerscope.extraction.settings import ExtractSettings
    from layerscope.extraction.time_batches import BatchTiming
    from layerscope.models import ListedCheckpoint, LoadedModel
    from layerscope.types import Source

Row = dict[str, Any]


@grouped
def command(
    context: typer.Context,
    caches: running.CacheOptions,
    compute: running.ComputeOptions,
    network: CheckpointOptions,
    batches: Annotated[
        int,
        compute_option(
            min=0, help="How many batches to run and time; with 0 only sizes are computed."
        ),
    ] = 4,
    as_json: Json = False,
) -> None:
    """Say what an extraction would take in disk, time and memory; nothing is written.

    The size on disk is exact. Time and memory are estimated from a few batches, which are read and
    sent through the network. It ends with exit code 1 where the disk cannot hold the result.

    \b
    Examples:
      layerscope plan simclr-objects3d --data objects3d=data/objects3d
      layerscope plan resnet50.pth --data in1k=imagenet/ --data clevr=CLEVR_v1.0 --batch-size 256
      layerscope plan runs.csv --data objects3d=data/objects3d --views 8
      layerscope plan vit.pth --data objects3d=data/objects3d --baselines pixels,random
      layerscope plan vit.pth --data inat=inat2018/ --pooling mean,cls --batches 0 --json
    """
    from layerscope.extraction.job import existing_parent
    from layerscope.extraction.settings import ExtractSettings

    asked = ExtractSettings(**compute.words(), **caches.words())
    series, beside = caches.members(), caches.beside()
    opened = [sources.open_pair(pair, allow_missing=asked.skip_bad) for pair in caches.data]
    words = context.params
    rows = [
        row for member in series for row in _planned(member, network, opened, words, asked, beside)
    ]
    free = shutil.disk_usage(existing_parent(caches.output / "cache.h5")).free
    together = sum(row["bytes"] for row in rows)
    rows = [row | {"free": free, "fits": together <= free} for row in rows]
    terminal.emit({"plans": rows}, as_json, lambda: _text(rows, together, free))
    if together > free:
        raise typer.Exit(FINDINGS)


def _planned(
    member: ListedCheckpoint,
    network: CheckpointOptions,
    opened: Sequence[Source],
    words: Mapping[str, Any],
    asked: ExtractSettings,
    beside: running.Beside,
) -> Iterator[Row]:
    """Yield what a checkpoint would take on each source, and then its baselines."""
    from layerscope.models import baseline_of

    model = member.named(network.load(member.checkpoint))
    # Random weights take the time of trained ones.
    timings: dict[Any, BatchTiming | None] = {}
    yield from _on_each(model, opened, words, asked, timings)
    for baseline in beside.next_to(model):
        yield from _on_each(baseline_of(model, baseline), opened, words, asked, timings)


def _on_each(
    model: LoadedModel,
    opened: Sequence[Source],
    words: Mapping[str, Any],
    asked: ExtractSettings,
    timings: dict[Any, BatchTiming | None],
) -> Iterator[Row]:
    from layerscope.extraction.extract import plan
    from layerscope.extraction.time_batches import time_batches

    cuts, batches = running.chosen_cuts(model, words), words["batches"]
    for place, source in enumerate(opened):
        job = plan(model, source, words["output"], asked, cuts=cuts)
        known = model.checkpoint.family, place
        if batches and job.remaining and timings.get(known) is None:
            timings[known] = time_batches(job, batches)
        yield _row(job, timings.get(known) if job.remaining else None)


def _row(job: ExtractJob, timing: BatchTiming | None) -> Row:
    cuts = job.header.cuts
    return {
        "checkpoint": job.header.checkpoint.name,
        "source": job.header.source.name,
        "images": job.header.rows,
        "remaining": job.remaining,
        "cuts": len({cut.name for cut in cuts}),
        "feature_sets": len(cuts),
        "features_per_image": sum(cut.width for cut in cuts),
        "bytes": job.bytes_left,
        "images_per_second": timing and round(timing.images_per_second, 1),
        "seconds": timing and round(job.remaining / timing.images_per_second),
        "waiting": timing and round(timing.waiting, 3),
        "memory": timing and timing.memory,
        "device_memory": timing and timing.device_memory,
    }


def _text(rows: list[Row], together: int, free: int) -> str:
    header = ("checkpoint", "source", "images", "cuts", "features", "disk", "time", "memory")
    lines = [
        (
            row["checkpoint"],
            row["source"],
            f"{row['remaining']:,}",
            str(row["cuts"])
            + f" in {row['feature_sets']} poolings" * (row["feature_sets"] > row["cuts"]),
            f"{row['features_per_image']:,}",
            terminal.size(row["bytes"]),
            _time(row),
            "" if row["memory"] is None else terminal.size(row["device_memory"] or row["memory"]),
        )
        for row in rows
    ]
    verdict = "fits" if together <= free else "does not fit"
    notes = [f"{terminal.size(together)} of {terminal.size(free)} free: it {verdict}."]
    notes += [
        f"{row['checkpoint']} on {row['source']}: {row['images_per_second']} images/s, "
        f"waiting on data {row['waiting']:.0%}"
        for row in rows
        if row["waiting"] is not None
    ]
    return "\n".join([terminal.table(header, lines, right=(2, 4, 5, 6, 7)), "", *notes])


def _time(row: Row) -> str:
    if row["seconds"] is None:
        return ""
    minutes, seconds = divmod(row["seconds"], 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"

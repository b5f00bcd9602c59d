"""``layerscope plan``: what an extraction would take in disk, memory and time, before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import running, sources, terminal
from layerscope.cli.checkpoint import CheckpointOptions
from layerscope.cli.options import Json, compute_option, grouped
from layerscope.errors import FINDINGS

if TYPE_CHECKING:
    from layerscope.extraction.extract import Plan
    from layerscope.extraction.time_batches import BatchTiming
    from layerscope.models import ListedCheckpoint

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
      layerscope plan vit.pth --data inat=inat2018/ --pooling mean,cls --batches 0 --json
    """
    how = {**compute.words(), **caches.words()}
    series = caches.members()
    opened = [sources.open_pair(pair, allow_missing=how["skip_bad"]) for pair in caches.data]
    words = context.params
    rows = [row for member in series for row in _planned(member, network, opened, words, how)]
    _tell_room(rows, caches.output)
    terminal.emit({"plans": rows}, as_json, lambda: _text(rows))
    if not all(row["fits"] for row in rows):
        raise typer.Exit(FINDINGS)


def _planned(
    member: ListedCheckpoint,
    network: CheckpointOptions,
    opened: list[Any],
    words: dict[str, Any],
    how: dict[str, Any],
) -> list[Row]:
    from layerscope.extraction.extract import plan
    from layerscope.extraction.time_batches import time_batches
    from layerscope.models import select_cuts

    model = member.named(network.load(member.checkpoint))
    cuts = select_cuts(model, words["cuts"], words["pooling"])
    rows = []
    for source in opened:
        planned = plan(model, source, words["output"], cuts=cuts, **how)
        found = None
        if words["batches"]:
            timing = {name: how[name] for name in ("device", "precision")}
            chosen = planned.header.cuts
            found = time_batches(model, planned.loader, chosen, batches=words["batches"], **timing)
        rows.append(_row(planned, found))
    return rows


def _row(planned: Plan, found: BatchTiming | None) -> Row:
    cuts = planned.header.cuts
    return {
        "checkpoint": planned.header.checkpoint.name,
        "source": planned.header.source.name,
        "images": planned.header.rows,
        "remaining": planned.remaining,
        "cuts": len({cut.name for cut in cuts}),
        "feature_sets": len(cuts),
        "features_per_image": sum(cut.width for cut in cuts),
        "bytes": planned.remaining * planned.header.row_bytes,
        "images_per_second": None if found is None else round(found.images_per_second, 1),
        "seconds": None if found is None else round(planned.remaining / found.images_per_second),
        "waiting": None if found is None else round(found.waiting, 3),
        "memory": None if found is None else found.memory,
        "device_memory": None if found is None else found.device_memory,
    }


def _tell_room(rows: list[Row], output: Path) -> None:
    from layerscope.extraction.extract import existing_parent

    free = shutil.disk_usage(existing_parent(output / "cache.h5")).free
    together = sum(row["bytes"] for row in rows)
    for row in rows:
        row["free"], row["fits"] = free, together <= free


def _text(rows: list[Row]) -> str:
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
    together, free = sum(row["bytes"] for row in rows), rows[0]["free"]
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

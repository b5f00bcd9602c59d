"""``layerscope evaluate``: probes of clean images on shifted ones, such as ImageNet-C."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli import running, settings, sources, terminal
from layerscope.cli.checkpoint import CheckpointOptions
from layerscope.cli.options import Json, ResultsFolder, grouped, read_option
from layerscope.errors import FINDINGS, CacheError, SettingsError

if TYPE_CHECKING:
    from layerscope.cache import Cache
    from layerscope.data.shifts import Shift
    from layerscope.extraction.evaluate import EvaluateReport
    from layerscope.models import LoadedModel


@grouped
def command(
    context: typer.Context,
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="The checkpoint, named as for the layerscope extract that made the clean cache.",
        ),
    ],
    data: Annotated[
        str,
        read_option(
            metavar="NAME=PATH",
            help="The shifted images and where they lie: a shift such as inc, or any image source.",
        ),
    ],
    compute: running.ComputeOptions,
    network: CheckpointOptions,
    probes: Annotated[
        Path,
        read_option(
            help="The cache of clean images on which probes are fitted, or a folder that holds it."
        ),
    ] = Path("features"),
    task: Annotated[
        str | None,
        read_option(help="The task whose probes are judged, where the cache has several."),
    ] = None,
    output: ResultsFolder = Path("results"),
    as_json: Json = False,
) -> None:
    """Judge the probes of clean images on images that are shifted, at every cut.

    A logistic probe is fitted at every cut of the clean cache, or taken from an earlier run. Then
    the shifted images are streamed through the network once, condition by condition; their features
    are not stored. For ImageNet-C the mean corruption error is relative to AlexNet's. Repeating the
    command goes on where it stopped.

    \b
    Examples:
      layerscope evaluate resnet50.pth --data inc=imagenet-c/ --probes features/resnet50@in1k.h5
      layerscope evaluate moco.pth.tar --declare branch=momentum --data folder=imagenetv2/
      layerscope evaluate resnet50.pth --data inc=imagenet-c/ --limit 1000 --json
    """
    from layerscope.data.shifts import open_shift
    from layerscope.extraction.evaluate import evaluate
    from layerscope.extraction.settings import EvaluateSettings

    asked = EvaluateSettings(task=task, **compute.words())
    name, path = sources.pair(data)
    shift = open_shift(name, path)
    model = network.load(checkpoint)
    with ExitStack() as stack:
        cache = stack.enter_context(_clean(model, probes, task or shift.task))
        label = f"{cache.checkpoint} on {shift.name}"
        with terminal.progress(label, len(shift.conditions)) as advance:
            report = evaluate(model, cache, shift, output, asked, progress=advance)
    settings.write(output / "settings.json", "evaluate", context.params)
    terminal.emit(asdict(report), as_json, lambda: _text(report, shift))
    if any(it.bad for it in report.evaluations):
        raise typer.Exit(FINDINGS)


def _clean(model: LoadedModel, path: Path, task: str | None) -> Cache:
    """Return the cache of a checkpoint's clean images: the file, or the one in a folder."""
    from layerscope.cache import find_caches, open_cache

    if path.is_file():
        return open_cache(path)
    fitting = []
    for found in find_caches(path):
        with open_cache(found) as cache:
            named = {it.name for it in cache.tasks if it.kind == "classes"}
            if cache.card.sha256 == model.checkpoint.sha256 and (not task or task in named):
                fitting.append(found)
    if len(fitting) == 1:
        return open_cache(fitting[0])
    asked = f" with classes of {task!r}" if task else ""
    if not fitting:
        raise CacheError(
            f"{str(path)!r} holds no cache of {model.checkpoint.name!r}{asked}.",
            hint="Make one of the clean images: layerscope extract CHECKPOINT --data in1k=PATH.",
        )
    raise SettingsError(
        f"{str(path)!r} holds several caches of {model.checkpoint.name!r}{asked}: "
        f"{', '.join(it.name for it in fitting)}.",
        hint="Name one of them with --probes.",
    )


def _text(report: EvaluateReport, shift: Shift) -> str:
    header = ("cut", "clean top-1", "shifted top-1", "mCE")
    rows = [
        (
            f"{it.key} *" if it.key == report.chosen else it.key,
            f"{it.clean:.2%}",
            f"{it.shifted:.2%}",
            "" if it.mce is None else f"{it.mce:.1%}",
        )
        for it in report.cuts
    ]
    table = terminal.table(header, rows, right=(1, 2, 3))
    count = len(shift.conditions)
    counted = f"{count} condition{'s' * (count != 1)}, {report.computed} streamed now."
    lines = [table, "", f"* chosen on clean validation images. {counted}"]
    if shift.baseline and any(it.mce is None for it in report.cuts):
        there = {it.family for it in report.evaluations}
        missing = [str(name) for name in shift.baseline if name not in there]
        lines.append(f"No mCE: these are missing: {', '.join(missing)}.")
    return "\n".join(lines)

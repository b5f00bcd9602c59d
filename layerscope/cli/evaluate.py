"""``layerscope evaluate``: probes of clean images on shifted ones, such as ImageNet-C."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import checkpoint as options
from layerscope.cli import running, settings, sources, terminal
from layerscope.errors import FINDINGS, CacheError, SettingsError

if TYPE_CHECKING:
    from layerscope.cache import Cache
    from layerscope.data.shifts import Shift
    from layerscope.extraction.evaluate import EvaluateReport
    from layerscope.models import LoadedModel


def command(
    context: typer.Context,
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="As it was named for layerscope extract.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="NAME=PATH", help="A shift such as inc, or any image source."
        ),
    ],
    probes: Annotated[
        Path, typer.Option("--probes", help="The cache of clean images, or a folder with it.")
    ] = Path("features"),
    task: Annotated[
        str | None, typer.Option("--task", help="Whose probes, where the cache has several tasks.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Results folder.")] = Path(
        "results"
    ),
    batch_size: running.BatchSize = 64,
    device: running.Device = "auto",
    precision: running.WhichPrecision = "float32",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many images per condition.")
    ] = None,
    loader: Annotated[
        str, typer.Option("--loader", help="What reads the images: threads, torchvision.")
    ] = "threads",
    workers: running.Workers = None,
    skip_bad_images: running.SkipBadImages = False,
    family: options.Family = None,
    arch: options.Arch = None,
    head_from: options.HeadFrom = None,
    prefix_tokens: options.PrefixTokens = None,
    map_axes: options.MapAxes = None,
    branch: options.WhichBranch = None,
    head_act: options.HeadAct = None,
    trunk_act: options.TrunkAct = None,
    attention_heads: options.AttentionHeads = None,
    stem: options.WhichStem = None,
    image_size: options.ImageSize = None,
    width: options.Width = None,
    batch_norm: options.BatchNorm = None,
    trust: options.Trust = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge the probes of clean images on images that are shifted, at every cut.

    A logistic probe is fitted at every cut of the clean cache, or taken from an earlier run. Then
    the shifted images are streamed through the network once, condition by condition; their features
    are not stored. For ImageNet-C the mean corruption error is relative to AlexNet's. Repeating the
    command goes on where it stopped.

    \b
    Examples:
      layerscope evaluate resnet50.pth --data inc=imagenet-c/ --probes features/resnet50@in1k.h5
      layerscope evaluate moco.pth.tar --branch momentum --data folder=imagenetv2/ --task in1k
      layerscope evaluate resnet50.pth --data inc=imagenet-c/ --limit 1000 --json
    """
    from layerscope.data.shifts import open_shift
    from layerscope.extraction.evaluate import evaluate

    name, path = sources.pair(data)
    shift = open_shift(name, path)
    model = options.load_with(checkpoint, context.params)
    with ExitStack() as stack:
        cache = stack.enter_context(_clean(model, probes, task or shift.task))
        label = f"{cache.checkpoint} on {shift.name}"
        with terminal.progress(label, len(shift.conditions)) as advance:
            report = evaluate(
                model,
                cache,
                shift,
                output,
                task=task,
                batch_size=batch_size,
                device=device,
                precision=precision,
                limit=limit,
                loader=loader,
                workers=workers,
                skip_bad=skip_bad_images,
                progress=advance,
            )
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
    word = "condition" if count == 1 else "conditions"
    counted = f"{count} {word}, {report.computed} streamed now."
    lines = [table, "", f"* chosen on clean validation images. {counted}"]
    if shift.baseline and any(it.mce is None for it in report.cuts):
        lines.append(_incomplete(report, shift))
    return "\n".join(lines)


def _incomplete(report: EvaluateReport, shift: Shift) -> str:
    there = {it.family for it in report.evaluations}
    missing: list[Any] = [name for name in shift.baseline if name not in there]
    return f"No mCE: these are missing: {', '.join(missing)}."

"""The verbs *plan*, which touches neither network nor disk, and *extract*: features to a cache."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerscope.cache import (
    CacheStatus,
    FeatureSink,
    Header,
    Sink,
    StatisticsSink,
    ingredients,
    with_series,
)
from layerscope.data import Loader, frame_preprocessing, thin_source, with_views
from layerscope.errors import UnknownNameError
from layerscope.estimators.regression import encode
from layerscope.extraction.batchnorm import batch_norm_ingredients
from layerscope.extraction.job import ExtractJob, Progress
from layerscope.extraction.report import ExtractReport
from layerscope.extraction.settings import ExtractSettings
from layerscope.runtime.device import choose_device
from layerscope.runtime.ranks import ALONE, Ranks
from layerscope.types import CutModel, Source
from layerscope.version import __version__


def extract(
    model: CutModel,
    source: Source,
    out: Path,
    settings: ExtractSettings | None = None,
    *,
    progress: Progress = lambda rows, note="": None,
    ranks: Ranks = ALONE,
    **changes: Any,
) -> ExtractReport:
    """Write the pooled features of every cut over every image, going on where a run stopped.

    The network runs in eval mode without gradients. Its parameters and buffers are hashed before
    the first batch, after it, and at the end: features of a network that changes are thrown away.
    While a batch is computed the next ones are decoded and those before are written.

    Args:
        model: A network with its cut points; it is moved to the device.
        source: From :func:`layerscope.data.open_source`.
        out: The folder for the cache.
        settings: How features are extracted; the defaults where there are none.
        progress: Called when a batch of this process was stored, by the thread that stores, with
            its number of rows and the slowest stage.
        ranks: This process among those that share the work; alone by default.
        **changes: Fields of :class:`ExtractSettings` that differ from ``settings``:
            ``batch_size=32``.

    Raises:
        LayerScopeError: What :func:`plan` and :meth:`ExtractJob.run` raise.
    """
    return plan(model, source, out, settings, ranks=ranks, **changes).run(progress)


def plan(
    model: CutModel,
    source: Source,
    out: Path,
    settings: ExtractSettings | None = None,
    *,
    ranks: Ranks = ALONE,
    **changes: Any,
) -> ExtractJob:
    """Return an extraction that is ready to run, with what it would write and what is there.

    Arguments are those of :func:`extract`.

    Raises:
        CheckpointError: The network lacks BatchNorm statistics and nothing was declared about it.
        CacheError: A cache is in the way that may not be touched.
        UnknownNameError: No loader, no task, or no augmentation, has this name.
        SettingsError: An option means nothing, or the loader or the preprocessing makes no views.
        DeviceError: The device is not there.
    """
    settings = replace(settings or ExtractSettings(), **changes)
    if settings.tasks is not None:
        source = _with_tasks(source, settings.tasks)
    images = source if settings.limit is None else thin_source(source, settings.limit)
    device = choose_device(settings.device, ranks.local_rank)
    preprocessing = frame_preprocessing(model.checkpoint.preprocessing, source.framing)
    if settings.views is not None:
        images, preprocessing = with_views(images, preprocessing, settings.views)
    own = None if ranks.count == 1 else len(ranks.own_processors())
    loader = settings.open_loader(images, preprocessing, device, own)
    sink = FeatureSink() if settings.stream is None else StatisticsSink(_regression(images))
    return ExtractJob(
        model=model,
        settings=settings,
        ranks=ranks,
        path=out / sink.file_name(model.checkpoint.name, images.name, settings.limit),
        header=_header(model, source, loader, settings, sink),
        sink=sink,
        loader=loader,
        device=device,
        cache_status=CacheStatus("new"),
    ).with_present_status()


def _header(
    model: CutModel, source: Source, loader: Loader, settings: ExtractSettings, sink: Sink
) -> Header:
    """Return the header of a file; the loader reads what is left of the source."""
    cuts = tuple(model.cuts if settings.cuts is None else settings.cuts)
    images, preprocessing = loader.request.source, loader.request.preprocessing
    return Header(
        checkpoint=model.checkpoint,
        cuts=cuts,
        source=images,
        ingredients=ingredients(
            model.checkpoint,
            cuts,
            source,
            preprocessing,
            decoder=loader.decoder,
            precision=settings.precision,
            storage=settings.storage,
            limit=settings.limit,
            views=None if settings.views is None else settings.views.as_record(),
        )
        | batch_norm_ingredients(model, images, settings.batch_size)
        | sink.ingredients(source),
        settings=with_series(
            {
                "precision": settings.precision,
                "batch_size": settings.batch_size,
                "loader": settings.loader,
                "decoder": loader.decoder,
                "preprocessing": {**asdict(preprocessing), "antialias": True},
                "versions": versions(),
            },
            settings.series,
        ),
    )


def _regression(source: Source) -> dict[str, torch.Tensor]:
    """Return by task the (n, c) encoded targets of those that are not classes."""
    return {
        task.name: encode(
            torch.from_numpy(np.column_stack([source.targets[task.name]]).astype(np.float64)), task
        )
        for task in source.tasks
        if task.kind in ("latents", "multilabel")
    }


def _with_tasks(source: Source, names: Sequence[str]) -> Source:
    """Return a source that knows some of its tasks alone.

    Raises:
        UnknownNameError: It has no task of such a name.
    """
    known = {task.name: task for task in source.tasks}
    for name in names:
        if name not in known:
            raise UnknownNameError("task", name, known)
    return replace(
        source,
        tasks=tuple(known[name] for name in names),
        targets={name: source.targets[name] for name in names},
        task_splits={k: v for k, v in source.task_splits.items() if k in names},
    )


def versions() -> dict[str, str]:
    """Return the versions of what the features went through."""
    names = ("torch", "torchvision", "pillow", "numba", "numpy", "h5py")
    return {
        "layerscope": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }

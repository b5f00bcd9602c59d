"""The verb *extract*: one network over one image source, into a cache of pooled features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerscope.extraction.job import Progress
from layerscope.extraction.plan import plan
from layerscope.extraction.report import ExtractReport
from layerscope.extraction.settings import ExtractSettings
from layerscope.runtime.ranks import ALONE, Ranks
from layerscope.types import CutModel, Source


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

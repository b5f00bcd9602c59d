"""The processes that render: each takes some views of one object at a time."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerscope.errors import RenderError
from layerscope.render.catalogue import ObjectInstance, colour, shape
from layerscope.render.files import jpeg, write_whole
from layerscope.render.latents import Latents
from layerscope.render.renderer import Renderer, renderers
from layerscope.render.scene import Scene
from layerscope.render.settings import RenderSettings


@dataclass(frozen=True, slots=True)
class RenderJob:
    """Some views of one object."""

    instance: ObjectInstance
    views: tuple[tuple[int, Latents, Path], ...]
    """Index, latents and file of each image."""


def render_jobs(
    jobs: Sequence[RenderJob], settings: RenderSettings, renderer: Renderer, workers: int
) -> Iterator[int]:
    """Render the jobs and yield the number of images whenever some are finished.

    Args:
        jobs: The views to render, object by object.
        settings: The settings of the whole data set.
        renderer: Used when there is one worker; others make their own in their process.
        workers: Number of processes; with 1 the work is done in this one.

    Raises:
        RenderError: A worker died, or the renderer failed.
        DiskError: The disk is full.
    """
    if workers > 1 and len(jobs) > 1:
        yield from _run_pool(jobs, settings, min(workers, len(jobs)))
        return
    for job in jobs:
        for _ in _render(job, settings, renderer):
            yield 1


def image_seed(seed: int, instance: int, view: int) -> int:
    """Return the renderer's seed for one image: 31 bits from these three numbers alone."""
    return int(np.random.default_rng([seed, instance, view, 4]).integers(2**31))


def _render(job: RenderJob, settings: RenderSettings, renderer: Renderer) -> Iterator[Path]:
    form, tint = shape(job.instance, settings.seed), colour(job.instance, settings.seed)
    for view, latents, file in job.views:
        scene = Scene(job.instance.name, form, tint, latents)
        seed = image_seed(settings.seed, job.instance.index, view)
        image = renderer.render(scene, settings.size, settings.samples, seed)
        write_whole(file, jpeg(image))
        yield file


def _run_pool(jobs: Sequence[RenderJob], settings: RenderSettings, workers: int) -> Iterator[int]:
    # Spawned, not forked: a renderer's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (settings,))
    try:
        futures: list[Future[int]] = [pool.submit(_run_job, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise RenderError(
            f"One of the {workers} rendering processes died without a word.",
            hint="Finished images are kept. Memory may have run out: repeat with fewer workers. A "
            'script of your own must make the call under if __name__ == "__main__".',
        ) from error
    finally:
        # Also on Ctrl-C: the jobs in progress are finished, the others are dropped.
        pool.shutdown(wait=True, cancel_futures=True)


_worker_tools: tuple[RenderSettings, Renderer] | None = None
"""In a worker process: what it renders with."""


def _start(settings: RenderSettings) -> None:
    global _worker_tools
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker_tools = settings, renderers[settings.renderer]()


def _run_job(job: RenderJob) -> int:
    if _worker_tools is None:
        raise RuntimeError("a worker got a job before it was started")
    return sum(1 for _ in _render(job, *_worker_tools))

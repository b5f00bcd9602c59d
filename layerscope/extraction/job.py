"""An extraction that is planned: what it would write, how much of it is there, and its running."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from layerscope.cache import (
    CacheBuild,
    CacheStatus,
    Header,
    Sink,
    StorageChoice,
    WriteAssignment,
    annotate,
    choose_storage,
    series_in,
    split_rows,
    storage_of,
)
from layerscope.data import BadImage, Loader
from layerscope.errors import DiskError, LayerScopeError
from layerscope.extraction.capture import FeatureBatch, FeatureCapture, Valid, capturing, drift
from layerscope.extraction.report import ExtractReport, RankResult, Status
from layerscope.extraction.settings import ExtractSettings
from layerscope.runtime.cpus import bound_to
from layerscope.runtime.ranks import Ranks
from layerscope.runtime.timers import READING, StageTimer
from layerscope.runtime.write_thread import WriteThread
from layerscope.types import CutModel, Setting

Progress = Callable[..., None]
"""``progress(n, note="")``: so many rows were just stored, and what slows them down."""

_SAMPLE = 8, 64
"""At least, at most: images by which is measured how features can be stored."""
_SKIPPED_EARLIER = "It could not be read when this cache was begun."


@dataclass(frozen=True, slots=True)
class ExtractJob:
    """What an extraction would write, and how much of it is there; from :func:`plan`."""

    model: CutModel
    settings: ExtractSettings
    ranks: Ranks
    path: Path
    header: Header
    sink: Sink
    """What becomes of the features."""
    loader: Loader
    """What reads the rows that are left."""
    device: torch.device
    cache_status: CacheStatus

    @property
    def bytes(self) -> int:
        """Size of the features of all rows and cuts, or of what is kept instead of them."""
        return self.sink.size(self.header)

    @property
    def bytes_left(self) -> int:
        """How much of that is still to be written."""
        return self.sink.size_left(self.header, self.cache_status)

    @property
    def series(self) -> dict[str, Setting]:
        """What distinguishes the checkpoint in a series."""
        return series_in(self.header.settings)

    @property
    def remaining(self) -> int:
        """Rows that are still to be computed."""
        return len(self.cache_status.missing)

    def share(self, ranks: Ranks) -> int:
        """Return how many rows one rank computes: whole batches, which depend on one another."""
        unit = self.settings.batch_size
        rows = self.sink.rows_due(self.header, self.cache_status.missing, unit)
        return len(split_rows(rows, ranks.count, unit)[ranks.rank])

    def with_present_status(self) -> ExtractJob:
        """Return the same job with what is on the disk by now.

        Raises:
            CacheError: A cache is in the way that may not be touched.
        """
        status = self.ranks.decide(
            lambda: self.sink.status(self.path, self.header, self.settings.existing)
        )
        loader = type(self.loader)(replace(self.loader.request, rows=status.missing))
        return replace(self, cache_status=status, loader=loader)

    def run(self, progress: Progress = lambda rows, note="": None) -> ExtractReport:
        """Compute and write what is missing.

        Args:
            progress: Called when a batch of this process was stored, by the thread that stores,
                with its number of rows and the slowest stage.

        Raises:
            SourceError: An image cannot be read.
            CheckpointError: The network changes while it is read, or its features are not finite.
            CacheError: A cache is in the way, or another process is writing it.
            DiskError: The disk is full; finished rows are kept.
            RankError: Another process that shared the work is gone.
        """
        if self.cache_status.state == "there":
            if not self.cache_status.outdated:
                return self._report([], "there")
            self.ranks.decide(lambda: annotate(self.path, self.header))
            return self._report([], "annotated")
        precision, cuts = self.settings.precision, self.header.cuts
        with (
            _own_processors(self.device, self.ranks),
            capturing(self.model, cuts, self.loader, self.device, precision) as capture,
            ExitStack() as held,
        ):
            start = self.ranks.decide(lambda: self._begin(capture, held))
            result = RankResult()
            if self.ranks.rank < len(start.assignments):
                result = self._write(start, capture, progress)
            results = self.ranks.gather(result)
            self.ranks.decide(lambda: self._finish(start, results))
        return self._report(results, "written", capture.difference)

    def _begin(self, capture: FeatureCapture, held: ExitStack) -> _Start:
        """Decide how features are stored and who writes which rows, and hold the cache."""
        header = self.header
        if not self.cache_status.parts:
            stored = choose_storage(capture.sample(self._sample()), header.asked)
            header = replace(header, stored=stored)
        header = replace(header, settings={**header.settings, **capture.settings()})
        build = CacheBuild(self.path, header, self.settings.existing, self.sink)
        held.push(build)
        assignments = build.assignments(self.ranks.count, self.settings.batch_size)
        return _Start(build.header.stored, build.header.settings, assignments, build)

    def _sample(self) -> Loader:
        """Return the loader of a few images, evenly spaced, in batches of at most the usual size.

        Which images depends on the source alone, so that no setting that merely decides how fast
        features are computed decides how they are stored.
        """
        reading, rows = self.loader.request, self.header.rows
        count = min(rows, max(_SAMPLE[0], min(_SAMPLE[1], rows // _SAMPLE[1])))
        count -= count % 2 if count > 1 else 0
        chosen = np.linspace(0, rows - 1, count).round().astype(np.int64)
        size = min(reading.batch_size, count)
        while size > 1 and count % size == 1:  # a last batch of one image has no statistics
            size -= 1
        # A bad image is reported when its turn comes, and what was there before it is kept.
        return type(self.loader)(replace(reading, rows=chosen, batch_size=size, skip_bad=True))

    def _write(self, start: _Start, capture: FeatureCapture, progress: Progress) -> RankResult:
        """Compute and write this rank's rows; what goes wrong is told to the other ranks first."""
        assignment = start.assignments[self.ranks.rank]
        header = replace(self.header, stored=start.stored, settings=start.settings)
        watch = StageTimer()
        images = type(self.loader)(replace(self.loader.request, rows=assignment.rows))

        def store(rows: npt.NDArray[np.int64], features: FeatureBatch, valid: Valid) -> None:
            writer.write(rows, features, valid)
            progress(len(rows), note=watch.note())

        error = None
        try:
            with (
                self.sink.writer(self.path, header, assignment) as writer,
                WriteThread(store) as storing,
            ):
                for batch in capture.run(images, watch):
                    with watch.storing():
                        storing.put(*batch)
        except LayerScopeError as problem:
            error = problem
        watch.stop()
        return RankResult(
            rows=len(assignment.rows),
            seconds=watch.seconds,
            shares=watch.shares(),
            bad=tuple(images.bad),
            changed=error is None and capture.changed(),
            error=error,
        )

    def _finish(self, start: _Start, results: Sequence[RankResult]) -> None:
        assert start.build is not None
        if any(result.changed for result in results):
            start.build.discard()
            raise drift(self.model, "Its rows were thrown away")
        for result in results:
            if result.error is not None:
                raise result.error
        start.build.finish()

    def _report(
        self,
        results: Sequence[RankResult],
        status: Status,
        difference: Mapping[str, float] | None = None,
    ) -> ExtractReport:
        seconds = max((result.seconds for result in results), default=0.0)
        slowest = max(results, key=lambda result: result.seconds, default=RankResult())
        ids, skipped = self.header.source.ids, self.cache_status.skipped
        earlier = [BadImage(row, ids[row], _SKIPPED_EARLIER) for row in skipped]
        return ExtractReport(
            path=self.path,
            status=status,
            rows=self.header.rows,
            resumed_from=self.cache_status.rows_done if status == "written" else 0,
            seconds=seconds,
            images_per_second=sum(r.rows for r in results) / seconds if seconds else 0.0,
            rank_rates=tuple(r.rows / r.seconds for r in results if r.seconds),
            waiting=slowest.shares.get(READING, 0.0),
            shares=slowest.shares,
            stored=storage_of(self.path),
            bad=(*earlier, *sorted(image for result in results for image in result.bad)),
            bfloat16_difference=difference,
            fingerprint=self.header.fingerprint,
        )


def require_room(jobs: Sequence[ExtractJob], unplanned: int = 0) -> None:
    """Refuse extractions whose results the disks cannot hold together.

    Args:
        jobs: Of all that is to be extracted; what is there already counts for nothing.
        unplanned: How many more there are, each taken to need what one of these does on average.

    Raises:
        DiskError: A disk has too little room.
    """
    needed: dict[Path, int] = {}
    for job in jobs:
        home = existing_parent(job.path)
        needed[home] = needed.get(home, 0) + job.bytes_left
    for home, planned in needed.items():
        count = planned + planned * unplanned // len(jobs)
        free = shutil.disk_usage(home).free
        if free < count:
            raise DiskError(
                f"The features need {count:,} bytes and {str(home)!r} has {free:,} free.",
                hint="Free some space, choose another disk with -o, or fewer layers with --cuts.",
            )


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above a path that is there: its disk is the path's."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


@dataclass(frozen=True, slots=True)
class _Start:
    """What the leader decided before the first row."""

    stored: Mapping[str, StorageChoice] | None
    settings: Mapping[str, Any]
    assignments: Sequence[WriteAssignment]
    build: CacheBuild | None = field(default=None, compare=False)
    """Held by the leader alone."""

    def __reduce__(self) -> Any:
        return _Start, (self.stored, self.settings, self.assignments)


@contextmanager
def _own_processors(device: torch.device, ranks: Ranks) -> Iterator[None]:
    """Leave the other ranks on this machine their processors, as long as this one computes."""
    if ranks.sharing == 1 or device.type != "cpu":
        yield
        return
    threads, own = torch.get_num_threads(), ranks.own_processors()
    torch.set_num_threads(len(own))
    try:
        # Left to the system, two ranks now and then share one processor and leave another idle.
        with bound_to(own):
            yield
    finally:
        torch.set_num_threads(threads)

"""The verb *extract*: one network over one image source, into a cache of pooled features."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import torch

from layerscope.cache import (
    AssignmentWriter,
    CacheBuild,
    CacheStatus,
    Collection,
    Header,
    StatisticsBuild,
    StatisticsWriter,
    Stored,
    WriteAssignment,
    annotate,
    cache_name,
    cache_status,
    choose_storage,
    divided,
    divisions,
    ingredients,
    series_in,
    statistics_name,
    statistics_status,
    statistics_stored_as,
    stored_as,
    whole_units,
    with_series,
)
from layerscope.data import (
    BadImage,
    Loader,
    ReadRequest,
    ViewSettings,
    frame_preprocessing,
    thin_source,
    with_views,
)
from layerscope.data.loaders import loaders
from layerscope.errors import DiskError, LayerScopeError, UnknownNameError
from layerscope.estimators.regression import encode
from layerscope.extraction.batchnorm import statistics
from layerscope.extraction.capture import Features, Network, capturing, drift
from layerscope.runtime.cpus import bound_to
from layerscope.runtime.device import choose_device
from layerscope.runtime.ranks import ALONE, Ranks
from layerscope.runtime.timers import READING, StageTimer
from layerscope.runtime.write_thread import WriteThread
from layerscope.types import (
    CutModel,
    CutPoint,
    Existing,
    Precision,
    Setting,
    Source,
    Storage,
)

Status = Literal["written", "there", "annotated"]
Stream = Literal["statistics"]
"""What is kept where features cannot be."""
Progress = Callable[..., None]
"""``progress(n, note="")``: so many rows were just stored, and what slows them down."""

_SAMPLE = 8, 64
"""At least, at most: images by which is measured how features can be stored."""
_EARLIER = "It could not be read when this cache was begun."


@dataclass(frozen=True, slots=True)
class Plan:
    """What an extraction would write, and how much of it is there."""

    path: Path
    header: Header
    cache_status: CacheStatus
    loader: Loader
    """What reads the rows that are left."""
    device: torch.device
    precision: Precision
    existing: Existing
    stream: Stream | None = None
    """What is kept instead of features."""

    @property
    def bytes(self) -> int:
        """Size of the features of all rows and cuts, or of what is kept instead of them."""
        if self.stream is not None:
            return self.collection.bytes
        return self.header.rows * self.header.row_bytes

    @property
    def bytes_left(self) -> int:
        """How much of that is still to be written."""
        if self.stream is not None:
            return self.bytes * (len(self.cache_status.missing) > 0)
        return self.remaining * self.header.row_bytes

    @property
    def regression(self) -> dict[str, torch.Tensor]:
        """By task: (n, c) the encoded targets of those that are not classes."""
        source = self.header.source
        return {
            task.name: encode(_table(source.targets[task.name]), task)
            for task in source.tasks
            if task.kind in ("latents", "multilabel")
        }

    @property
    def settings(self) -> dict[str, Setting]:
        """What distinguishes the checkpoint in a series."""
        return series_in(self.header.settings)

    @property
    def collection(self) -> Collection:
        """What the statistics of the features will be."""
        return Collection(self.header, divisions(self.header.source, self.regression))

    @property
    def remaining(self) -> int:
        """Rows that are still to be computed."""
        return len(self.cache_status.missing)

    def share(self, ranks: Ranks) -> int:
        """Return how many rows one rank computes: whole batches, which depend on one another."""
        unit = 1 if self.stream is not None else self.loader.request.batch_size
        rows = whole_units(self.cache_status.missing, unit, self.header.rows)
        return len(divided(rows, ranks.count, self.loader.request.batch_size)[ranks.rank])


def require_room(plans: Sequence[Plan]) -> None:
    """Refuse extractions whose results the disks cannot hold together.

    Args:
        plans: Of all that is to be extracted; what is there already counts for nothing.

    Raises:
        DiskError: A disk has too little room.
    """
    needed: dict[Path, int] = {}
    for planned in plans:
        home = existing_parent(planned.path)
        needed[home] = needed.get(home, 0) + planned.bytes_left
    for home, count in needed.items():
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
class ExtractReport:
    """What an extraction did."""

    path: Path
    status: Status
    """Whether rows were computed, the same cache was complete before, or only its splits, groups,
    targets and the checkpoint's settings were written anew."""
    rows: int
    resumed_from: int
    """Rows that an earlier run had left; 0 when this run made them all."""
    seconds: float
    images_per_second: float
    """Of the rows that this run computed; 0 when there were none."""
    rank_rates: tuple[float, ...]
    """The same of each rank by itself: the job ends with the slowest."""
    waiting: float
    """Share of the time in which the network waited for images."""
    shares: Mapping[str, float]
    """Of the time: what the network, images and the disk took from each other."""
    stored: Mapping[str, Stored]
    """By cut and pooling, in which type features are stored, and why if it is not the one asked."""
    bad: tuple[BadImage, ...]
    """Images that could not be read, by their row in the cache."""
    bfloat16_difference: Mapping[str, float] | None
    """By cut and pooling: norm of the difference to float32 over the norm, on the first batch."""
    fingerprint: str


class Options(TypedDict, total=False):
    """How features are extracted; every one has a default."""

    cuts: Sequence[CutPoint] | None
    """Some of the network's cut points, a cut once for each of its poolings; all in their usual
    pooling by default."""
    batch_size: int
    """Images per forward pass, 64."""
    device: str
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Precision
    """``float32``, or ``bfloat16``: under autocast, and what that changes is measured."""
    storage: Storage
    """``float16``, but float32 for cuts where that would lose; ``bfloat16``, ``float32``."""
    existing: Existing
    """What to do with a cache that is there: keep, ``missing`` (go on) or replace."""
    limit: int | None
    """At most so many images, an equal share of every split, for a smoke run."""
    loader: str
    """The name of a registered loader, ``threads``."""
    workers: int | None
    """Its threads or processes; one for each processor by default."""
    skip_bad: bool
    """Leave out images that cannot be read, instead of stopping at the first."""
    ranks: Ranks
    """This process among those that share the work; alone by default."""
    stream: Stream | None
    """``statistics`` keeps those of the features, and no feature."""
    views: ViewSettings | None
    """Augmented views of each image in place of the image."""
    series: Mapping[str, Setting]
    """What distinguishes the checkpoint in a series or a grid, such as its epoch."""
    tasks: Sequence[str] | None
    """With ``stream``: the tasks whose targets are crossed with the features; all by default."""


def plan(
    model: CutModel,
    source: Source,
    out: Path,
    *,
    cuts: Sequence[CutPoint] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    precision: Precision = "float32",
    storage: Storage = "float16",
    existing: Existing = "missing",
    limit: int | None = None,
    loader: str = "threads",
    workers: int | None = None,
    skip_bad: bool = False,
    ranks: Ranks = ALONE,
    stream: Stream | None = None,
    views: ViewSettings | None = None,
    series: Mapping[str, Setting] | None = None,
    tasks: Sequence[str] | None = None,
) -> Plan:
    """Return what :func:`extract` would do, without touching the network or writing anything.

    Args:
        model: A network with its cut points.
        source: From :func:`layerscope.data.open_source`.
        out: The folder for the cache.
        cuts: As all that follow, described by :class:`Options`.
        batch_size: Images per forward pass.
        device: Where the network computes.
        precision: In which it computes.
        storage: In which type features are stored.
        existing: What to do with a cache that is there.
        limit: At most this many images.
        loader: What reads the images.
        workers: Its threads or processes.
        skip_bad: Whether unreadable images are left out.
        ranks: This process among those that share the work.
        stream: What is kept instead of features.
        views: Augmented views of each image in place of the image.
        series: What distinguishes the checkpoint in a series or a grid.
        tasks: Whose statistics, where it is statistics.

    Raises:
        CheckpointError: The network lacks BatchNorm statistics and nothing was declared about it.
        CacheError: A cache is in the way that may not be touched.
        UnknownNameError: No loader, or no augmentation, has this name.
        SettingsError: The loader or the preprocessing makes no views.
        DeviceError: The device is not there.
    """
    chosen = tuple(model.cuts if cuts is None else cuts)
    if tasks is not None:
        source = with_tasks(source, tasks)
    thinned = source if limit is None else thin_source(source, limit)
    where = choose_device(device, ranks.local_rank)
    preprocessing = frame_preprocessing(model.checkpoint.preprocessing, source.framing)
    if views is not None:
        thinned, preprocessing = with_views(thinned, preprocessing, views)
    reading = ReadRequest(
        source=thinned,
        preprocessing=preprocessing,
        batch_size=batch_size,
        workers=workers or (None if ranks.count == 1 else len(ranks.own_processors())),
        skip_bad=skip_bad,
        # Bytes are a quarter of what would have to travel, and a GPU normalises for nothing.
        normalised=where.type == "cpu",
    )
    images = loaders[loader](reading)
    header = Header(
        checkpoint=model.checkpoint,
        cuts=chosen,
        source=thinned,
        ingredients=ingredients(
            model.checkpoint,
            chosen,
            source,
            preprocessing,
            decoder=images.decoder,
            precision=precision,
            storage=storage,
            limit=limit,
            views=None if views is None else views.as_record(),
        )
        | statistics(model, thinned, batch_size)
        | ({} if stream is None else {"stream": stream, "tasks": [t.name for t in source.tasks]}),
        settings=with_series(
            {
                "precision": precision,
                "batch_size": batch_size,
                "loader": loader,
                "decoder": images.decoder,
                "preprocessing": {**asdict(preprocessing), "antialias": True},
                "versions": versions(),
            },
            series or {},
        ),
    )
    named, stands = (
        (cache_name, cache_status) if stream is None else (statistics_name, statistics_status)
    )
    path = out / named(model.checkpoint.name, thinned.name, limit)
    found = ranks.decide(lambda: stands(path, header, existing))
    rest = type(images)(replace(reading, rows=found.missing))
    return Plan(path, header, found, rest, where, precision, existing, stream)


def with_tasks(source: Source, names: Sequence[str]) -> Source:
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


def extract(
    model: CutModel,
    source: Source,
    out: Path,
    *,
    progress: Progress = lambda rows, note="": None,
    **options: Unpack[Options],
) -> ExtractReport:
    """Write the pooled features of every cut over every image, going on where a run stopped.

    The network runs in eval mode without gradients. Its parameters and buffers are hashed before
    the first batch, after it, and at the end: features of a network that changes are thrown away.
    While a batch is computed the next ones are decoded and those before are written.

    Args:
        model: A network with its cut points; it is moved to the device.
        source: From :func:`layerscope.data.open_source`.
        out: The folder for the cache.
        progress: Called when a batch of this process was stored, by the thread that stores, with
            its number of rows and the slowest stage.
        **options: Described by :class:`Options`.

    Raises:
        SourceError: An image cannot be read.
        CheckpointError: The network changes while it is read, or its features are not finite.
        CacheError: A cache is in the way, or another process is writing it.
        DiskError: The disk is full; finished rows are kept.
        DeviceError: The device is not there.
        RankError: Another process that shared the work is gone.
        UnknownNameError: No loader has this name.
    """
    ranks = options.get("ranks", ALONE)
    planned = plan(model, source, out, **options)
    if planned.cache_status.status == "there":
        if planned.cache_status.outdated:
            ranks.decide(lambda: annotate(planned.path, planned.header))
        return _report(planned, [], "annotated" if planned.cache_status.outdated else "there")
    with (
        _own_processors(planned.device, ranks),
        capturing(
            model, planned.header.cuts, planned.loader, planned.device, planned.precision
        ) as network,
        ExitStack() as held,
    ):
        begun = ranks.decide(lambda: _begun(planned, network, ranks, held))
        mine = begun.shares[ranks.rank] if ranks.rank < len(begun.shares) else None
        result = _Result()
        if mine is not None:
            result = _written(planned, begun.header(planned), mine, network, progress)
        results = ranks.gather(result)
        ranks.decide(lambda: _concluded(model, begun, results))
    return _report(planned, results, "written", network.difference)


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the leader decided before the first row."""

    stored: Mapping[str, Stored] | None
    settings: Mapping[str, Any]
    shares: Sequence[WriteAssignment]
    undertaking: CacheBuild | StatisticsBuild | None = field(default=None, compare=False)
    """Held by the leader alone."""

    def __reduce__(self) -> Any:
        return _Begun, (self.stored, self.settings, self.shares)

    def header(self, planned: Plan) -> Header:
        return replace(planned.header, stored=self.stored, settings=self.settings)


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one rank's share."""

    rows: int = 0
    seconds: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)
    bad: tuple[BadImage, ...] = ()
    changed: bool = False
    error: LayerScopeError | None = None


def _begun(planned: Plan, network: Network, ranks: Ranks, held: ExitStack) -> _Begun:
    """Decide how features are stored and who writes which rows, and hold the cache."""
    header = planned.header
    if planned.cache_status.stored is None:
        stored = choose_storage(network.sample(_sample(planned)), header.asked)
        header = replace(header, stored=stored)
    header = replace(header, settings={**header.settings, **network.settings()})
    undertaking = _undertaken(planned, header)
    held.push(undertaking)
    shares = undertaking.shares(ranks.count, planned.loader.request.batch_size)
    agreed = undertaking.header
    return _Begun(agreed.stored, agreed.settings, shares, undertaking)


def _undertaken(planned: Plan, header: Header) -> CacheBuild | StatisticsBuild:
    if planned.stream is None:
        return CacheBuild(planned.path, header, planned.existing)
    return StatisticsBuild(planned.path, header, planned.existing, planned.regression)


def _writer(
    planned: Plan, header: Header, share: WriteAssignment
) -> AssignmentWriter | StatisticsWriter:
    if planned.stream is None:
        return AssignmentWriter(planned.path, header, share)
    return StatisticsWriter(planned.path, header, share, planned.regression)


def _sample(planned: Plan) -> Loader:
    """Return the loader of a few images, evenly spaced; it depends on the source alone."""
    reading, rows = planned.loader.request, planned.header.rows
    count = min(rows, max(_SAMPLE[0], min(_SAMPLE[1], rows // _SAMPLE[1])))
    size = min(reading.batch_size, count)
    count -= count % size  # a last batch of one image has no statistics
    chosen = np.linspace(0, rows - 1, count).round().astype(np.int64)
    # A bad image is reported when its turn comes, and what was there before it is kept.
    return type(planned.loader)(replace(reading, rows=chosen, batch_size=size, skip_bad=True))


def _written(
    planned: Plan, header: Header, share: WriteAssignment, network: Network, progress: Progress
) -> _Result:
    """Compute and write one share; what goes wrong in it is told to the other ranks first."""
    watch, loader = StageTimer(), planned.loader
    images = type(loader)(replace(loader.request, rows=share.rows))
    error = None
    try:
        with (
            _writer(planned, header, share) as writer,
            WriteThread(partial(_stored, writer, watch, progress)) as storing,
        ):
            for batch in network.run(images, watch):
                with watch.storing():
                    storing.put(*batch)
    except LayerScopeError as problem:
        error = problem
    watch.stop()
    return _Result(
        rows=len(share.rows),
        seconds=watch.seconds,
        shares=watch.shares(),
        bad=tuple(images.bad),
        changed=error is None and network.changed(),
        error=error,
    )


def _stored(
    writer: AssignmentWriter | StatisticsWriter,
    watch: StageTimer,
    progress: Progress,
    rows: npt.NDArray[np.int64],
    features: Features,
    valid: npt.NDArray[np.bool_],
) -> None:
    writer.write(rows, features, valid)
    progress(len(rows), note=watch.note())


def _concluded(model: CutModel, begun: _Begun, results: Sequence[_Result]) -> None:
    undertaking = begun.undertaking
    assert undertaking is not None
    if any(result.changed for result in results):
        undertaking.discard()
        raise drift(model, "Its rows were thrown away")
    for result in results:
        if result.error is not None:
            raise result.error
    undertaking.finish()


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


def _table(values: npt.NDArray[Any]) -> torch.Tensor:
    numbers = torch.from_numpy(np.asarray(values, dtype=np.float64))
    return numbers if numbers.ndim == 2 else numbers[:, None]


def versions() -> dict[str, str]:
    """Return the versions of what the features went through."""
    from layerscope.version import __version__

    names = ("torch", "torchvision", "pillow", "numba", "numpy", "h5py")
    return {
        "layerscope": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _earlier(planned: Plan) -> tuple[BadImage, ...]:
    ids = planned.header.source.ids
    return tuple(BadImage(row, ids[row], _EARLIER) for row in planned.cache_status.skipped)


def _report(
    planned: Plan,
    results: Sequence[_Result],
    status: Status,
    difference: Mapping[str, float] | None = None,
) -> ExtractReport:
    seconds = max((result.seconds for result in results), default=0.0)
    slowest = max(results, key=lambda result: result.seconds, default=_Result())
    bad = sorted(image for result in results for image in result.bad)
    return ExtractReport(
        path=planned.path,
        status=status,
        rows=planned.header.rows,
        resumed_from=planned.cache_status.rows_done if status == "written" else 0,
        seconds=seconds,
        images_per_second=sum(r.rows for r in results) / seconds if seconds else 0.0,
        rank_rates=tuple(r.rows / r.seconds for r in results if r.seconds),
        waiting=slowest.shares.get(READING, 0.0),
        shares=slowest.shares,
        stored=(stored_as if planned.stream is None else statistics_stored_as)(planned.path),
        bad=(*_earlier(planned), *bad),
        bfloat16_difference=difference,
        fingerprint=planned.header.fingerprint,
    )

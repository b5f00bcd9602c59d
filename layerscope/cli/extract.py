"""``layerscope extract``: the pooled features of every cut, one cache per checkpoint and source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from layerscope.cli import running, settings, sources, terminal
from layerscope.cli.checkpoint import CheckpointOptions
from layerscope.cli.options import Compact, Json, OptionGroup, grouped, keep_option, older_option
from layerscope.errors import FINDINGS, WRONG_USE, LayerScopeError, SettingsError

if TYPE_CHECKING:
    from layerscope.extraction.job import ExtractJob
    from layerscope.extraction.report import ExtractReport
    from layerscope.extraction.settings import ExtractSettings
    from layerscope.models import ListedCheckpoint, LoadedModel
    from layerscope.runtime.ranks import Ranks
    from layerscope.types import Baseline, Source

Row = dict[str, Any]

_MEMORY_SHARE = 4
"""Checkpoints that wait for their turn take one part in so many of the memory."""


@dataclass(frozen=True, kw_only=True)
class StreamOptions(OptionGroup):
    """What is kept in place of features."""

    stream: Annotated[
        str | None,
        keep_option(
            metavar="statistics[,tasks=NAMES]",
            help="Instead of features, keep their counts, means and moments, and their cross "
            "moments with the targets of these tasks; of all tasks by default.",
        ),
    ] = None
    tasks: Annotated[str | None, older_option()] = None

    compact: ClassVar[Compact] = {"stream": {"tasks": "tasks"}}

    def words(self) -> dict[str, Any]:
        """Return these settings by the names that they have in Python."""
        if self.stream not in (None, "statistics"):
            raise SettingsError(
                f"--stream {self.stream!r} names nothing that can be kept instead of features.",
                hint="Write --stream statistics, or leave it out.",
            )
        if self.tasks is not None and self.stream is None:
            raise SettingsError(
                f"--tasks {self.tasks!r} says whose statistics to keep, and features are kept "
                "here.",
                hint="Leave it out, for a cache holds the targets of all tasks; or write --stream "
                f"statistics,tasks={self.tasks}.",
            )
        names = None if self.tasks is None else [name.strip() for name in self.tasks.split(",")]
        return {"stream": self.stream, "tasks": names}


@grouped
def command(
    context: typer.Context,
    caches: running.CacheOptions,
    compute: running.ComputeOptions,
    network: CheckpointOptions,
    kept: StreamOptions,
    dry_run: Annotated[bool, older_option("--dry-run")] = False,
    as_json: Json = False,
) -> None:
    """Compute the pooled features of every cut once, and keep them in a cache.

    One file is written for each checkpoint and image source. Repeating the command goes on where
    it stopped; a cache that is complete and was made from the same things is left alone. With
    several poolings each cut is captured in all that fit its output, in the same pass.

    Several checkpoints may be a series: a pattern of files, whose names tell their epochs, or a
    .csv table with a line for each and a column for each of its settings. Epochs and settings are
    kept in the caches. With --views each image is seen in several random views instead, and each
    view is a row of its own.

    With --baselines there are caches of what each network has to beat: mean colours of the images
    (NAME-pixels), and random weights in its place (NAME-random-0, …).

    With --stream statistics no feature is stored. What is stored instead is enough for ridge,
    nearest-class-mean and LDA probes, coding rates and spectra: counts, means, second moments, and
    cross moments with the targets. layerscope.open_statistics reads them.

    How much disk, memory and time it would take, layerscope plan says beforehand.

    Under torchrun (torchrun --nproc-per-node=8 -m layerscope extract ...) the ranks share the rows,
    a GPU each; what one of them has written is kept whatever becomes of the others, and any number
    of ranks goes on with it.

    \b
    Examples:
      layerscope extract simclr-objects3d --data objects3d=data/objects3d
      layerscope extract a.safetensors b.pth --data objects3d=data/objects3d -o features/
      layerscope extract resnet50.pth --data objects3d=DIR --cuts 'layer4.*,head.*' --limit 200
      layerscope extract vit.pth --data objects3d=DIR --pooling mean,cls --cuts '-4:'
      layerscope extract moco.pth.tar --data objects3d=DIR --declare branch=momentum
      layerscope extract cifar.pth --data objects3d=DIR --declare stem=cifar,image_size=32
      layerscope extract 'runs/epoch_*.pth' --data objects3d=DIR -o features/
      layerscope extract runs.csv --data objects3d=DIR -o features/
      layerscope extract net.pth --data objects3d=DIR --views 8,augment=simclr -o views/
      layerscope extract net.pth --data objects3d=DIR --baselines pixels,random=5
      layerscope extract vit.pth --data places=DIR --stream statistics,tasks=places205
    """
    from layerscope.extraction.settings import ExtractSettings
    from layerscope.runtime.device import choose_device
    from layerscope.runtime.ranks import joined

    asked = ExtractSettings(**compute.words(), **caches.words(), **kept.words())
    series, beside = caches.members(), caches.beside()
    with joined() as ranks, terminal.quiet_unless(ranks.leads):
        where = choose_device(asked.device, ranks.local_rank)
        opened = [sources.open_pair(pair, allow_missing=asked.skip_bad) for pair in caches.data]
        if not dry_run:
            together = f", the first of {ranks.count} ranks" if ranks.count > 1 else ""
            terminal.say(f"Device: {where}" + " (auto)" * (asked.device == "auto") + together)
        run = _Run(context.params, network, asked, ranks, opened, caches.output, beside)
        run.extract(series)
        run.emit(as_json)
    raise typer.Exit(run.exit_code())


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint once it is loaded, with what was planned of it ahead of its turn."""

    member: ListedCheckpoint
    model: LoadedModel
    settings: ExtractSettings
    jobs: dict[int, ExtractJob] = field(default_factory=dict)
    """By the place of the source; what is wrong with others is said when their turn comes."""


@dataclass(frozen=True)
class _Unloaded:
    """A checkpoint that cannot be loaded, which is said when its turn comes."""

    member: ListedCheckpoint
    error: LayerScopeError


@dataclass
class _Run:
    """Several extractions, of which one that fails does not cost the others."""

    words: dict[str, Any]
    network: CheckpointOptions
    settings: ExtractSettings
    ranks: Ranks
    opened: Sequence[Source]
    output: Path
    beside: running.Beside
    waiting: deque[Callable[[], _Loaded | _Unloaded]] = field(default_factory=deque)
    """What loads the next checkpoints; a baseline's holds the network that it stands beside."""
    rows: list[Row] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """By name: which of the checkpoints has it."""

    def extract(self, series: Sequence[ListedCheckpoint]) -> None:
        """Load each checkpoint once, plan it once, and run what was planned."""
        self.waiting = deque(partial(self._load, member) for member in series)
        several = len(series) * len(self.opened) > 1 or self.words["baselines"] is not None
        ready = deque[_Loaded | _Unloaded]()
        if several and not self.words["dry_run"]:
            ready = self._plan_ahead()
        while ready or self.waiting:
            # Nothing here keeps a network that had its turn.
            self._take(ready.popleft() if ready else self.waiting.popleft()())

    def _plan_ahead(self) -> deque[_Loaded | _Unloaded]:
        """Load and plan as many checkpoints as memory holds; refuse what would fill the disk."""
        from layerscope.extraction.extract import plan
        from layerscope.extraction.job import require_room
        from layerscope.runtime.memory import memory

        room = self.ranks.decide(lambda: memory() // (_MEMORY_SHARE * self.ranks.count))
        ready = deque[_Loaded | _Unloaded]()
        jobs: list[ExtractJob] = []
        while self.waiting and room > 0:
            loaded = self.waiting.popleft()()
            ready.append(loaded)
            if isinstance(loaded, _Unloaded):
                continue
            room -= _bytes_of(loaded.model)
            for place, source in enumerate(self.opened):
                with suppress(LayerScopeError):
                    job = plan(loaded.model, source, self.output, loaded.settings, ranks=self.ranks)
                    loaded.jobs[place] = job
                    jobs.append(job)
        require_room(jobs, unplanned=len(self.waiting) * len(self.opened))
        return ready

    def _plan(self, loaded: _Loaded, source: Source) -> ExtractJob:
        from layerscope.extraction.extract import plan

        return plan(loaded.model, source, self.output, loaded.settings, ranks=self.ranks)

    def _load(self, member: ListedCheckpoint) -> _Loaded | _Unloaded:
        """Load a checkpoint, whose baselines come next."""
        try:
            model = member.named(self.network.load(member.checkpoint))
            cuts = running.chosen_cuts(model, self.words)
            baselines = self.beside.next_to(model)
        except LayerScopeError as error:
            return _Unloaded(member, error)
        loaded = _Loaded(member, model, replace(self.settings, cuts=cuts, series=member.settings))
        turns = [partial(self._load_baseline, loaded, baseline) for baseline in baselines]
        self.waiting.extendleft(reversed(turns))
        return loaded

    def _load_baseline(self, beside: _Loaded, baseline: Baseline) -> _Loaded | _Unloaded:
        from layerscope.models import ListedCheckpoint, baseline_of

        member = ListedCheckpoint(baseline.of(beside.member.checkpoint))
        try:
            model = baseline_of(beside.model, baseline)
            cuts = running.chosen_cuts(model, self.words)
        except LayerScopeError as error:
            return _Unloaded(member, error)
        return _Loaded(member, model, replace(self.settings, cuts=cuts))

    def _take(self, loaded: _Loaded | _Unloaded) -> None:
        member = loaded.member
        try:
            if isinstance(loaded, _Unloaded):
                raise loaded.error
            self._require_own_name(loaded.model.checkpoint.name, member.checkpoint)
        except LayerScopeError as error:
            self._fail(member.checkpoint, None, error)
            return
        model = loaded.model
        for note in model.notes:
            terminal.say(f"{model.checkpoint.name}: {note}")
        if member.settings:
            given = ", ".join(f"{name} {value}" for name, value in member.settings.items())
            terminal.say(f"{model.checkpoint.name}: {given}.")
        for place, source in enumerate(self.opened):
            try:
                self.rows.append(self._one(loaded, place))
            except LayerScopeError as error:
                self._fail(member.checkpoint, source.name, error)

    def _require_own_name(self, name: str, word: str) -> None:
        other = self.names.setdefault(name, word)
        if other != word:
            raise SettingsError(
                f"{word!r} and {other!r} are both called {name!r}, and have one cache.",
                hint="List them in a .csv table, with a name for each in its column name.",
            )

    def _one(self, loaded: _Loaded, place: int) -> Row:
        from layerscope.extraction.job import require_room

        if place in loaded.jobs:  # since it was planned, others may have written it
            job = loaded.jobs[place].with_present_status()
        else:
            job = self._plan(loaded, self.opened[place])
        if self.words["dry_run"]:
            return _planned(job)
        require_room([job])
        # Not sooner: a command that was refused must not pass for the one that made these caches.
        if self.ranks.leads:
            settings.write(self.output / "settings.json", "extract", self.words)
        label = f"{job.header.checkpoint.name} on {job.header.source.name}"
        if job.cache_status.rows_done:
            terminal.say(f"{label}: {job.cache_status.rows_done} rows are there.")
        if job.cache_status.state == "there":
            report = job.run()
        else:
            with terminal.progress(label, job.share(self.ranks), "images") as advance:
                report = job.run(advance)
        _say_what_differs(report)
        return _planned(job) | _written(report)

    def _fail(self, checkpoint: str, source: str | None, error: LayerScopeError) -> None:
        named = error.message if checkpoint in error.message else f"{checkpoint}: {error.message}"
        terminal.explain(named, error.hint)
        failure = {"checkpoint": checkpoint, "source": source}
        self.failed.append(failure | {"error": error.message, "hint": error.hint})

    def emit(self, as_json: bool) -> None:
        """Write what was done to stdout; with nothing done there is no table."""
        if as_json or self.rows:
            terminal.emit({"caches": self.rows, "failed": self.failed}, as_json, self._text)

    def _text(self) -> str:
        header = ("checkpoint", "source", "images", "cuts", "bytes", "status", "path")
        rows = [tuple(_cell(row[name]) for name in header) for row in self.rows]
        return terminal.table(header, rows, right=(2, 3, 4))

    def exit_code(self) -> int:
        """Return 2 when nothing succeeded, 1 when something failed or was skipped, else 0."""
        if self.failed and not self.rows:
            return WRONG_USE
        return FINDINGS if self.failed or any(row.get("bad") for row in self.rows) else 0


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _planned(job: ExtractJob) -> Row:
    status = job.cache_status
    return {
        "checkpoint": job.header.checkpoint.name,
        "source": job.header.source.name,
        "images": job.header.rows,
        "cuts": len(job.header.cuts),
        "bytes": job.bytes,
        "status": f"{status.rows_done} rows there" if status.state == "part" else status.state,
        "path": str(job.path),
        "fingerprint": job.header.fingerprint,
        "settings": job.series,
    }


def _bytes_of(model: LoadedModel) -> int:
    tensors = (*model.module.parameters(), *model.module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _written(report: ExtractReport) -> Row:
    difference = report.bfloat16_difference
    return {
        "status": report.status,
        "resumed_from": report.resumed_from,
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 2),
        "rank_rates": [round(rate, 2) for rate in report.rank_rates],
        "waiting": round(report.waiting, 3),
        "shares": {stage: round(share, 3) for stage, share in report.shares.items()},
        "stored": {key: asdict(stored) for key, stored in report.stored.items()},
        "bad": [bad._asdict() for bad in report.bad],
        "bfloat16_difference": None if difference is None else dict(difference),
    }


def _say_what_differs(report: ExtractReport) -> None:
    for bad in report.bad:
        terminal.say(f"Skipped row {bad.row}, {bad.id}: {bad.reason}")
    for key, stored in report.stored.items():
        if stored.why:
            terminal.say(f"Stored in {stored.type}: {key}, because {stored.why}.")
    if report.bfloat16_difference:
        cut, worst = max(report.bfloat16_difference.items(), key=lambda item: item[1])
        terminal.say(f"bfloat16 changes the features by at most {worst:.2%} (at {cut}).")

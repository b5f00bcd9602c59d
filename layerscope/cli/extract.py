"""``layerscope extract``: the pooled features of every cut, one cache per checkpoint and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from layerscope.cli import running, settings, sources, terminal
from layerscope.cli.checkpoint import CheckpointOptions
from layerscope.cli.options import Compact, Json, OptionGroup, grouped, keep_option
from layerscope.errors import FINDINGS, WRONG_USE, LayerScopeError, SettingsError

if TYPE_CHECKING:
    from layerscope.extraction.extract import ExtractReport, Plan
    from layerscope.models import ListedCheckpoint, LoadedModel
    from layerscope.types import CutPoint, Setting, Source

Row = dict[str, Any]


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
    tasks: Annotated[
        str | None,
        typer.Option(help="The older form of --stream statistics,tasks=NAMES.", hidden=True),
    ] = None

    compact: ClassVar[Compact] = {"stream": {"tasks": "tasks"}}

    def words(self) -> dict[str, Any]:
        """Return these settings by the names that they have in Python.

        Raises:
            SettingsError: Something else than statistics is to be kept, or tasks are named although
                features are kept.
        """
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing, as layerscope plan does, which also says how long it would take.",
            hidden=True,
        ),
    ] = False,
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
      layerscope extract vit.pth --data places=DIR --stream statistics,tasks=places205
    """
    from layerscope.runtime.device import choose_device
    from layerscope.runtime.ranks import joined

    how = {**compute.words(), **caches.words(), **kept.words()}
    series = caches.members()
    with joined() as ranks, terminal.quiet_unless(ranks.leads):
        where = choose_device(compute.device, ranks.local_rank)
        opened = [sources.open_pair(pair, allow_missing=how["skip_bad"]) for pair in caches.data]
        run = _Run(context.params, network, {**how, "ranks": ranks})
        if not dry_run:
            together = f", the first of {ranks.count} ranks" if ranks.count > 1 else ""
            terminal.say(f"Device: {where}" + " (auto)" * (compute.device == "auto") + together)
            run.require_room(series, opened)
        for member in series:
            run.checkpoint(member, opened)
        run.emit(as_json)
    raise typer.Exit(run.exit_code())


class _Run:
    """Several extractions, of which one that fails does not cost the others."""

    def __init__(
        self, words: dict[str, Any], network: CheckpointOptions, how: dict[str, Any]
    ) -> None:
        self._words = words
        self._network = network
        self._how = how
        self._output: Path = words["output"]
        self._rows: list[Row] = []
        self._names: dict[str, str] = {}
        """By name: which of the checkpoints has it."""
        self._failed: list[Row] = []

    def require_room(self, series: Sequence[ListedCheckpoint], opened: Sequence[Source]) -> None:
        """Refuse to begin what would end on a full disk, hours later."""
        from layerscope.extraction.extract import plan, require_room

        if len(series) * len(opened) < 2:
            return  # the only cache is measured when it is opened
        plans = []
        for member in series:
            # What is wrong with one of them is said when its turn comes.
            with suppress(LayerScopeError):
                model, cuts = self._loaded(member)
                for source in opened:
                    with suppress(LayerScopeError):
                        plans.append(plan(model, source, self._output, cuts=cuts, **self._how))
        require_room(plans)

    def checkpoint(self, member: ListedCheckpoint, opened: Sequence[Source]) -> None:
        word = member.checkpoint
        try:
            model, cuts = self._loaded(member)
            self._require_own_name(model.checkpoint.name, word)
        except LayerScopeError as error:
            self._fail(word, None, error)
            return
        for note in model.notes:
            terminal.say(f"{model.checkpoint.name}: {note}")
        if member.settings:
            told = ", ".join(f"{name} {value}" for name, value in member.settings.items())
            terminal.say(f"{model.checkpoint.name}: {told}.")
        for source in opened:
            try:
                self._rows.append(self._one(model, cuts, source, member.settings))
            except LayerScopeError as error:
                self._fail(word, source.name, error)

    def _loaded(self, member: ListedCheckpoint) -> tuple[LoadedModel, tuple[CutPoint, ...]]:
        from layerscope.models import select_cuts

        model = member.named(self._network.load(member.checkpoint))
        return model, select_cuts(model, self._words["cuts"], self._words["pooling"])

    def _require_own_name(self, name: str, word: str) -> None:
        other = self._names.setdefault(name, word)
        if other != word:
            raise SettingsError(
                f"{word!r} and {other!r} are both called {name!r}, and have one cache.",
                hint="List them in a .csv table, with a name for each in its column name.",
            )

    def _one(
        self,
        model: LoadedModel,
        cuts: Sequence[CutPoint],
        source: Source,
        series: Mapping[str, Setting],
    ) -> Row:
        from layerscope.extraction.extract import extract, plan, require_room

        how = {**self._how, "series": series}
        planned = plan(model, source, self._output, cuts=cuts, **how)
        if self._words["dry_run"]:
            return _planned(planned)
        require_room([planned])
        # Not sooner: a command that was refused must not pass for the one that made these caches.
        ranks = self._how["ranks"]
        if ranks.leads:
            settings.write(self._output / "settings.json", "extract", self._words)
        label = f"{model.checkpoint.name} on {planned.header.source.name}"
        if planned.cache_status.rows_done:
            terminal.say(f"{label}: {planned.cache_status.rows_done} rows are there.")
        job = partial(extract, model, source, self._output, cuts=cuts, **how)
        if planned.cache_status.status == "there":
            report = job()
        else:
            with terminal.progress(label, planned.share(ranks), "images") as advance:
                report = job(progress=advance)
        _tell(report)
        return _planned(planned) | _written(report)

    def _fail(self, checkpoint: str, source: str | None, error: LayerScopeError) -> None:
        named = error.message if checkpoint in error.message else f"{checkpoint}: {error.message}"
        terminal.say(f"Error: {named}")
        if error.hint:
            terminal.say(f"Hint: {error.hint}")
        self._failed.append(
            {
                "checkpoint": checkpoint,
                "source": source,
                "error": error.message,
                "hint": error.hint,
            }
        )

    def emit(self, as_json: bool) -> None:
        """Write what was done to stdout; with nothing done there is no table."""
        if as_json or self._rows:
            terminal.emit({"caches": self._rows, "failed": self._failed}, as_json, self._text)

    def _text(self) -> str:
        header = ("checkpoint", "source", "images", "cuts", "bytes", "status", "path")
        rows = [tuple(_cell(row[name]) for name in header) for row in self._rows]
        return terminal.table(header, rows, right=(2, 3, 4))

    def exit_code(self) -> int:
        """Return 2 when nothing succeeded, 1 when something failed or was skipped, else 0."""
        if self._failed and not self._rows:
            return WRONG_USE
        return FINDINGS if self._failed or any(row.get("bad") for row in self._rows) else 0


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _planned(planned: Plan) -> Row:
    cache_status = planned.cache_status
    return {
        "checkpoint": planned.header.checkpoint.name,
        "source": planned.header.source.name,
        "images": planned.header.rows,
        "cuts": len(planned.header.cuts),
        "bytes": planned.bytes,
        "status": {"part": f"{cache_status.rows_done} rows there"}.get(
            cache_status.status, cache_status.status
        ),
        "path": str(planned.path),
        "fingerprint": planned.header.fingerprint,
        "settings": planned.settings,
    }


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
        "bad": [{"row": bad.row, "id": bad.id, "reason": bad.reason} for bad in report.bad],
        "bfloat16_difference": None if difference is None else dict(difference),
    }


def _tell(report: ExtractReport) -> None:
    for bad in report.bad:
        terminal.say(f"Skipped row {bad.row}, {bad.id}: {bad.reason}")
    for key, stored in report.stored.items():
        if stored.why:
            terminal.say(f"Stored in {stored.type}: {key}, because {stored.why}.")
    if report.bfloat16_difference:
        cut, worst = max(report.bfloat16_difference.items(), key=lambda item: item[1])
        terminal.say(f"bfloat16 changes the features by at most {worst:.2%} (at {cut}).")

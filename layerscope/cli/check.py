"""``layerscope check``: does a piece of somebody's own keep what its kind promises?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerscope.cli import running, sources, terminal
from layerscope.cli.checkpoint import CheckpointName, CheckpointOptions
from layerscope.cli.options import Command, Json, grouped, read_option
from layerscope.errors import (
    FINDINGS,
    CheckpointError,
    EstimatorError,
    LayerScopeError,
    SourceError,
    TrainingError,
)

if TYPE_CHECKING:
    from layerscope.registry import Registry

Row = dict[str, Any]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A Python file that registers your own.")
]

app = typer.Typer(
    help="Check a piece of your own, or how images are prepared, before a number depends on it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
"""The commands of ``layerscope check``."""


@app.command("family", cls=Command)
def family(path: File, as_json: Json = False) -> None:
    """Check a checkpoint family of your own.

    The family shows examples of its files with an independent forward of the same weights. Each
    has to be recognised as this family alone, give the features of that forward at every cut, use
    or explain every tensor, and refuse a trunk that is damaged. Findings end with exit code 1.

    \b
    Examples:
      layerscope check family mine.py
      layerscope check family mine.py --json
    """
    from layerscope.models.families import families
    from layerscope.testing import check_family

    hint = "End it with families.add(Mine.name, Mine())."
    names = _run_plugin("family", path, families, CheckpointError, hint, as_json)
    hint = "Give it a method examples() that yields layerscope.testing.FamilyExample."
    rows = [_check_examples(it, families, check_family, CheckpointError, hint) for it in names]
    _conclude("family", rows, as_json)


@app.command("task", cls=Command)
def task(path: File, as_json: Json = False) -> None:
    """Check an image source of your own, and its tasks.

    The source shows examples: a small set that it writes in its layout, with the truth about every
    row. It has to be read as the truth says, the same from any place, with its metadata complete;
    and a set that is empty, or an image that is gone or cut short, has to be refused by a
    SourceError. Findings end with exit code 1.

    \b
    Examples:
      layerscope check task mine.py
      layerscope check task mine.py --json
    """
    from layerscope.data.sources import sources as known
    from layerscope.testing import check_source

    hint = 'Decorate the function that opens a folder with @sources.register("mine").'
    names = _run_plugin("source", path, known, SourceError, hint, as_json)
    hint = "Give the opener an attribute examples: a function that yields TaskExample."
    rows = [_check_examples(it, known, check_source, SourceError, hint) for it in names]
    _conclude("source", rows, as_json)


@app.command("estimator", cls=Command)
def estimator(
    given: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME",
            help="A Python file that registers your own, or an estimator as for --estimators of "
            "layerscope probe: a name or an import path.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Check an estimator of your own, or any that probe takes.

    A probe is tried on small layers with a known truth, one task of each kind that it handles. It
    has to give every row's loss, to fit and choose without the test rows, to count groups and not
    rows, and to refuse features that are not finite. A measure has to ignore what its definition
    declares, and nothing else. Findings end with exit code 1.

    \b
    Examples:
      layerscope check estimator mine.py
      layerscope check estimator "sklearn.svm.LinearSVC(C=0.1)"
    """
    from layerscope.estimators import estimators
    from layerscope.testing import check_estimator

    names = [given]
    if Path(given).suffix == ".py" or Path(given, "__init__.py").is_file():
        hint = 'Decorate its class with @estimators.register("mine").'
        names = _run_plugin("estimator", Path(given), estimators, EstimatorError, hint, as_json)
    _conclude("estimator", [{"name": it, "findings": check_estimator(it)} for it in names], as_json)


@app.command("method", cls=Command)
def method(path: File, as_json: Json = False) -> None:
    """Check a training method of your own.

    It has to say whose targets it needs and where it is described; to make the same views from the
    same seed, of the size that is asked for; to have a finite loss with a gradient for every
    parameter; and to lower it in a training of a few seconds, to the same numbers every time.
    Findings end with exit code 1.

    \b
    Examples:
      layerscope check method mine.py
      layerscope check method mine.py --json
    """
    from layerscope.testing import check_method
    from layerscope.training.methods import methods

    hint = "End it with methods.add(Mine.name, Mine())."
    names = _run_plugin("method", path, methods, TrainingError, hint, as_json)
    _conclude("method", [{"name": it, "findings": check_method(it)} for it in names], as_json)


@app.command("cache", cls=Command)
def cache(
    caches: Annotated[
        list[Path],
        typer.Argument(
            metavar="CACHE...", help="Caches, whole or unfinished, or folders of caches."
        ),
    ],
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Drop rows that are damaged; extract then computes them again."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every row, target and attribute of a cache with what was written.

    Each row of features has a checksum, and everything else a digest. With --repair, rows that are
    damaged count as missing: repeat the extract command that made the cache, and it computes those
    rows and no others. Findings end with exit code 1.

    \b
    Examples:
      layerscope check cache features/vit@in1k.h5
      layerscope check cache features/ --json
      layerscope check cache features/vit@in1k.h5 --repair
    """
    from layerscope.cache import check_cache, count_rows, find_caches
    from layerscope.cache import repair as drop

    rows = []
    for path in [found for given in caches for found in find_caches(given)]:
        with terminal.progress(f"check {path}", count_rows(path), "images") as advance:
            found = check_cache(path, advance)
        files = {str(file.path): file for file in found.files}
        findings = [
            {"file": name, "finding": it} for name, file in files.items() for it in file.findings
        ]
        dropped = drop(found) if repair and not found.sound else None
        rows.append(
            {
                "path": str(path),
                "rows": found.rows,
                "sound": found.sound,
                "findings": findings,
                "lost_rows": {k: file.lost.tolist() for k, file in files.items() if len(file.lost)},
                "repaired": dropped is not None,
                "to_compute": dropped,
            }
        )
    terminal.emit({"caches": rows}, as_json, lambda: "\n".join(map(_describe_cache, rows)))
    if any(row["findings"] for row in rows):
        raise typer.Exit(FINDINGS)


def _describe_cache(row: Row) -> str:
    if row["sound"]:
        return f"{row['path']}: sound, {row['rows']} rows"
    lines = [f"{row['path']}: damaged, {row['rows']} rows checked"]
    lines += [f"  {found['file']}: {found['finding']}" for found in row["findings"]]
    if row["repaired"]:
        lines.append(
            f"  Dropped; repeat the layerscope extract command that made it, and it computes "
            f"{row['to_compute']} rows again."
        )
    return "\n".join(lines)


@app.command("preprocessing", cls=Command)
@grouped
def preprocessing(
    checkpoint: CheckpointName,
    network: CheckpointOptions,
    data: Annotated[
        str,
        read_option(
            metavar="NAME=PATH[,OPTION=VALUE]",
            help="The images: the name of their source, and the folder or .beton file of them.",
        ),
    ],
    loader: Annotated[
        str, read_option(help="The loader that is compared: threads, ffcv or torchvision.")
    ] = "threads",
    against: Annotated[
        str, read_option(help="The loader that it is compared with.")
    ] = "torchvision",
    other_data: Annotated[
        str | None,
        read_option(
            "--against-data",
            metavar="NAME=PATH[,OPTION=VALUE]",
            help="Where the other loader reads the same images, such as the original files of a "
            ".beton; the same place by default.",
        ),
    ] = None,
    images: Annotated[int, read_option(min=1, help="How many images are compared.")] = 64,
    cuts: running.Cuts = None,
    device: running.Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure how far two loaders' features lie apart, layer by layer.

    Both read the same rows, evenly spaced over the source. Printed are the differences of the
    prepared images in grey levels, and of the features at each cut relative to their size.

    \b
    Examples:
      layerscope check preprocessing simclr-objects3d --data objects3d=data/objects3d
      layerscope check preprocessing net.pth --data in1k=in1k.beton --loader ffcv --against threads
    """
    from layerscope.extraction.loader_parity import compare_loaders
    from layerscope.models import select_cuts

    model = network.load(checkpoint)
    source = sources.open_pair(data)
    other = source if other_data is None else sources.open_pair(other_data)
    report = compare_loaders(
        model,
        source,
        other,
        loader=loader,
        against=against,
        images=images,
        cuts=select_cuts(model, cuts, None),
        device=device,
    )
    terminal.emit(report.record(), as_json, lambda: _format_differences(report))


def _run_plugin(
    kind: str,
    path: Path,
    registry: Registry[Any],
    error: type[LayerScopeError],
    hint: str,
    as_json: bool,
) -> list[str]:
    """Run a file, and return the names that it registers; what LayerScope refuses is a finding."""
    from layerscope.registry import load_plugin

    try:
        new = load_plugin(path).names(registry)
    except LayerScopeError as refusal:
        if isinstance(refusal.__cause__, LayerScopeError):
            _conclude(kind, [{"name": str(path), "findings": [str(refusal)]}], as_json)
        raise
    if not new:
        raise error(f"{str(path)!r} registers no {registry.kind}.", hint=hint)
    return new


def _check_examples(
    name: str,
    registry: Registry[Any],
    check: Callable[[str, Any], list[str]],
    error: type[LayerScopeError],
    hint: str,
) -> Row:
    from layerscope.testing import collect

    count = 0

    def check_each() -> Iterator[str]:
        nonlocal count
        for count, example in enumerate(getattr(registry[name], "examples", tuple)(), start=1):
            yield from (f"example {count}: {finding}" for finding in check(name, example))

    findings = collect(check_each())
    if not count and not findings:
        raise error(
            f"{name!r} shows no example of its files, so nothing can be checked.", hint=hint
        )
    return {"name": name, "examples": count, "findings": findings}


def _conclude(kind: str, rows: list[Row], as_json: bool) -> None:
    named = [{kind if k == "name" else k: v for k, v in row.items()} for row in rows]
    terminal.emit(named, as_json, lambda: _format(rows))
    if any(row["findings"] for row in rows):
        raise typer.Exit(FINDINGS)


def _format(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        found = row["findings"]
        state = f"{len(found)} findings" if found else "conforms"
        examples = f", {row['examples']} examples" if "examples" in row else ""
        lines.append(f"{row['name']}: {state}{examples}")
        lines += [f"  {finding}" for finding in found]
    return "\n".join(lines)


def _format_differences(report: Any) -> str:
    rows = [(name, f"{mean:.2e}", f"{most:.2e}") for name, (mean, most) in report.features.items()]
    table = terminal.table(("cut", "difference", "largest row"), rows, right=(1, 2))
    grey, most = report.pixels
    return (
        f"{report.loader} against {report.against}, {report.images} images.\n"
        f"Prepared images: {grey:.4f} grey levels on average, {most:.2f} at most.\n\n{table}"
    )

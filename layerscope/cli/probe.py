"""``layerscope probe``: what every cut is worth for every task, and where to cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from layerscope.cli import settings, terminal
from layerscope.cli.options import Json, ResultsFolder, keep_option
from layerscope.errors import FINDINGS, SettingsError, UnknownNameError
from layerscope.types import METRICS, SPELLINGS, UNLABELLED, Existing

if TYPE_CHECKING:
    from layerscope.probing import Arrangement
    from layerscope.probing.cells import SweepReport
    from layerscope.results.shared_rows import SharedRows
    from layerscope.types import Estimator, FeatureCache, Interval, Score, Task, Verdict
    from layerscope.verdicts.common_cut import CommonCut

score_option = partial(typer.Option, rich_help_panel="What to score")
rows_option = partial(typer.Option, rich_help_panel="Which rows to train on, and how often")

SHOWN = 3
"""Names in a list before it says how many more there are."""


def command(
    context: typer.Context,
    caches: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CACHE...", help="Caches, or folders of caches.", show_default="features/"
        ),
    ] = None,
    tasks: Annotated[
        str,
        score_option(help="Tasks, with commas: names, names of sources for all of theirs, globs."),
    ] = "*",
    estimators: Annotated[
        str | None,
        score_option(
            help="Probes and measures, with commas: names as in layerscope list estimators, or "
            "import paths of scikit-learn estimators.",
            show_default="logistic, ridge",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        score_option(
            help="Choose and judge cuts by this metric in place of the task's own, where its kind "
            "has it: auroc, balanced-accuracy (mean-per-class), mean-average-precision, nll, "
            "nmse and others. Its scores take the place of those by another metric.",
            show_default="each task's own",
        ),
    ] = None,
    output: ResultsFolder = Path("results"),
    train: Annotated[
        str,
        rows_option(
            help="How many training rows, with commas: all, a share of them (10%), or a number of "
            "each class (5/class). Rows that share a group are drawn together."
        ),
    ] = "all",
    seeds: Annotated[int, rows_option(min=1, help="How often to repeat what chance decides.")] = 1,
    folds: Annotated[
        int, rows_option(min=1, help="In how many folds to cross-validate; 1 takes the val split.")
    ] = 1,
    control: Annotated[
        str,
        score_option(
            help="Also score under controls, with commas: width=N or pca=N (as many features at "
            "every cut), shuffled (targets in random order, which shows what a probe alone is good "
            "for, and no leak: rows that two splits share are looked for in any case)."
        ),
    ] = "",
    keep_predictions: Annotated[
        bool, keep_option("--keep-predictions", help="Keep what is predicted of each test row.")
    ] = False,
    existing: Annotated[
        Existing,
        keep_option(
            help="What to do about scores that are there: leave them (keep), compute those that "
            "are missing or out of date (missing), or all anew (replace)."
        ),
    ] = "missing",
    seed: Annotated[
        int,
        rows_option(help="The first seed of --seeds, and the seed of the intervals' resamples."),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Score every cut on every task, and print where to cut and how sure that is.

    For a checkpoint with several tasks it also prints the one cut that serves all of them, and what
    each task gives up by it. Test and validation rows with the very features of other splits' rows
    are counted and named.

    \b
    Examples:
      layerscope probe
      layerscope probe features/ --tasks objects3d --estimators ridge -o results/
      layerscope probe --estimators "lda,sgd:moco,sklearn.svm.LinearSVC(C=0.1)"
      layerscope probe features/mine@objects3d.h5 --tasks "*hue" --json
      layerscope probe features/ --metric auroc -o results-auroc/
      layerscope probe --train 1%,10%,all --seeds 3
      layerscope probe --control width=64,shuffled
      layerscope probe --estimators "rankme,twonn,coding-rate,coding-rate(eps_sq=0.1)"
    """
    from layerscope.cache import find_caches, open_cache
    from layerscope.probing import arrangements
    from layerscope.verdicts.common_cut import common_cuts
    from layerscope.verdicts.comparison import comparisons, note_widths, verdict

    paths = [found for path in caches or [Path("features")] for found in find_caches(path)]
    with ExitStack() as stack:
        opened = [stack.enter_context(open_cache(path)) for path in paths]
        asked = _judged_by(metric, _select_tasks(tasks, opened))
        chosen = _make_estimators(estimators, asked, seed)
        ways = arrangements(
            _split_list(train), ["", *_split_list(control)], folds=folds, seed=seed, seeds=seeds
        )
        names = {cache.checkpoint for cache in opened}
        _say_other_metrics(asked, chosen, names, output, existing)
        report = _run_sweep(opened, asked, chosen, ways, output, existing, keep_predictions)
        shared = _find_shared_rows(opened, output, existing)
    values = {name: value for name, value in context.params.items() if name != "as_json"}
    settings.write(output / "settings.json", "probe", values | {"caches": paths})
    wanted = {task.name: task for task in [*asked, UNLABELLED]}
    items = [
        item
        for item in comparisons(report.results)
        if item.first.checkpoint in names
        and item.first.task in wanted
        and item.first.metric == wanted[item.first.task].metric
    ]
    found = note_widths([(item, verdict(item, seed=seed)) for item in items])
    common, reasons = common_cuts(items, seed=seed)
    _print(report, found, common, shared, wanted, names, as_json)
    for line in reasons:
        terminal.say(line)
    if report.failed:
        raise typer.Exit(FINDINGS)


def _select_tasks(pattern: str, caches: Sequence[FeatureCache]) -> tuple[Task, ...]:
    from layerscope.data import select_tasks

    known = {task.name: task for cache in caches for task in cache.tasks}
    for word in pattern.split(","):
        _require_held(word.strip(), tuple(known.values()))
    return select_tasks(pattern, tuple(known.values()))


def _judged_by(metric: str | None, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Return the tasks with another primary metric, where their kind has it.

    Raises:
        UnknownNameError: There is no such metric.
        SettingsError: None of the tasks can be judged by it.
    """
    if metric is None:
        return tuple(tasks)
    known = {name for kind in METRICS.values() for name in kind if name}
    if SPELLINGS.get(metric, metric) not in known:
        raise UnknownNameError("metric", metric, sorted(known | set(SPELLINGS)))
    judged, reasons = [], []
    for task in tasks:
        try:
            judged.append(task.judged_by(metric))
        except SettingsError as error:
            judged.append(task)
            reasons.append(error)
    if reasons and len(reasons) == len(tasks):
        raise reasons[0]
    return tuple(judged)


def _say_other_metrics(
    tasks: Sequence[Task],
    estimators: Sequence[Estimator],
    checkpoints: Collection[str],
    output: Path,
    existing: Existing,
) -> None:
    """Say which scores are there by another metric than the one that is asked for now."""
    from layerscope.results.store import Results

    asked, fitted = {task.name: task.metric for task in tasks}, {it.name for it in estimators}
    there = {
        (it.task, it.metric)
        for it in Results(output).scores()
        if it.primary
        and it.kind == "probe"
        and it.estimator in fitted
        and it.checkpoint in checkpoints
    }
    for task, metric in sorted(there):
        new = asked.get(task, metric)
        if new == metric:
            continue
        then = f"Those by {new} take their place; for both, give another --output."
        if existing == "keep":
            then = f"There are none by {new}, and none are computed."
        terminal.say(f"{task}: {output} holds scores by {metric}. {then}")


def _require_held(word: str, held: Sequence[Task]) -> None:
    """Tell a task that the caches lack from one that does not exist."""
    from layerscope.data import all_tasks, select_tasks
    from layerscope.data.sources import sources

    with suppress(UnknownNameError):
        select_tasks(word, held)
        return
    try:
        meant = select_tasks(word, all_tasks())
    except UnknownNameError:
        return  # of which the nearest names are said
    source = meant[0].source
    verb = "extract" if source in sources else "evaluate"
    make = f"layerscope {verb} CHECKPOINT --data {source}=PATH"
    raise SettingsError(f"No cache holds targets of {word!r}.", hint=f"Use {make} first.")


def _make_estimators(pattern: str | None, tasks: Sequence[Task], seed: int) -> list[Estimator]:
    from layerscope.estimators.naming import DEFAULT, make, split_names

    names = split_names(pattern) if pattern else DEFAULT
    made = {one.name: one for one in (make(name, seed) for name in names)}
    asked = [*tasks, UNLABELLED]
    fit = [one for one in made.values() if any(one.handles(task) for task in asked)]
    if fit:
        return fit
    raise SettingsError(
        f"None of the estimators {', '.join(names)} can score {', '.join(t.name for t in tasks)}.",
        hint="Leave --estimators out for logistic and ridge; layerscope list estimators has more.",
    )


def _run_sweep(
    caches: Sequence[FeatureCache],
    tasks: Sequence[Task],
    estimators: Sequence[Estimator],
    ways: Sequence[Arrangement],
    output: Path,
    existing: Existing,
    keep_predictions: bool,
) -> SweepReport:
    from layerscope.probing.cells import size, sweep

    with terminal.progress("probe", size(caches, tasks, estimators, ways)) as advance:
        report = sweep(
            caches,
            tasks,
            estimators,
            output,
            arrangements=ways,
            existing=existing,
            keep_predictions=keep_predictions,
            progress=advance,
        )
    report.results.export()
    copied = f", {report.copied} copied from cuts with the same features" if report.copied else ""
    terminal.say(f"{report.computed} cells computed{copied}, {report.kept} kept, in {output}.")
    for line in _failures(report):
        terminal.say(line)
    return report


def _find_shared_rows(
    caches: Sequence[FeatureCache], output: Path, existing: Existing
) -> list[SharedRows]:
    """Return what is known of rows that two splits of these caches share."""
    from layerscope.probing import find_shared_rows
    from layerscope.results.shared_rows import keep_shared_rows, read_shared_rows

    if existing != "keep":
        for cache in caches:
            keep_shared_rows(output, cache.checkpoint, cache.source, find_shared_rows(cache))
    known = {(cache.checkpoint, cache.source) for cache in caches}
    return [it for it in read_shared_rows(output) if (it.checkpoint, it.source) in known]


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _failures(report: SweepReport) -> list[str]:
    """Return one line for each checkpoint and reason, however many cells it took."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for score in report.failed:
        cells = reasons.setdefault((score.checkpoint, score.note), {})
        cells[f"{score.cut} {score.task}"] = None
    return [
        f"Failed: {checkpoint}, {_abbreviate(list(cells))}: {note}"
        for (checkpoint, note), cells in reasons.items()
    ]


def _abbreviate(names: Sequence[str]) -> str:
    more = f" +{len(names) - SHOWN}" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _print(
    report: SweepReport,
    verdicts: Sequence[Verdict],
    common: Sequence[CommonCut],
    shared: Sequence[SharedRows],
    tasks: dict[str, Task],
    names: set[str],
    as_json: bool,
) -> None:
    from layerscope.results.store import row
    from layerscope.verdicts.comparison import with_sentence

    scores = [
        score
        for score in report.results.scores()
        if score.checkpoint in names and score.task in tasks
    ]
    data = {
        "verdicts": [with_sentence(it, tasks[it.task].title) for it in verdicts],
        "across": [asdict(one) for one in common],
        "shared_rows": [asdict(one) for one in shared],
        "scores": [row(score) for score in scores],
    }
    # A cut that is in an older cache alone has a row that nothing replaced.
    measures = [
        score
        for score in report.results.current(scores)
        if score.primary and score.kind == "measure" and score.status == "done" and score.usual
    ]
    terminal.emit(data, as_json, lambda: _format(verdicts, common, shared, tasks, measures))


def _format(
    verdicts: Sequence[Verdict],
    common: Sequence[CommonCut],
    shared: Sequence[SharedRows],
    tasks: dict[str, Task],
    measures: Sequence[Score],
) -> str:
    from layerscope.results.shared_rows import sentences

    parts = [_verdict_table(verdicts, common, tasks)] if verdicts else []
    parts += [_measure_table(measures)] if measures else []
    parts = parts or ["No verdict: no cut has a score."]
    return "\n\n".join([*parts, *(["\n".join(sentences(shared))] if shared else [])])


def _measure_table(scores: Sequence[Score]) -> str:
    """Return a table of what every measure says of the test rows, cut by cut, over seeds."""
    columns = list(dict.fromkeys(map(_column, scores)))
    rows: dict[tuple[str, ...], dict[str, list[Score]]] = {}
    for score in sorted(scores, key=lambda score: (score.checkpoint, score.source, score.index)):
        place = (score.checkpoint, score.source, score.cut, score.pooling)
        rows.setdefault(place, {}).setdefault(_column(score), []).append(score)
    lines = [
        (*place, *(_mean(cells.get(column, [])) for column in columns))
        for place, cells in rows.items()
    ]
    numbers = range(4, 4 + len(columns))
    header = ("checkpoint", "source", "cut", "pooling", *columns)
    table = terminal.table(header, lines, right=numbers)
    return f"{table}\nOf the test rows, with standard errors; no measure has chosen a cut."


def _mean(seeds: Sequence[Score]) -> str:
    if not seeds:
        return ""
    test, stderr = (fmean(getattr(score, name) for score in seeds) for name in ("test", "stderr"))
    return f"{test:.4g} ± {stderr:.1g}"


def _column(score: Score) -> str:
    """Return the name of a score's column: its metric, how that was set, and for which task."""
    _, opened, settings = score.estimator.partition("(")
    name = f"{score.metric}{opened}{settings}"
    return f"{name} of {score.task}" if score.labelled else name


def _verdict_table(
    verdicts: Sequence[Verdict], common: Sequence[CommonCut], tasks: dict[str, Task]
) -> str:
    from layerscope.verdicts.common_cut import sentence as common_cut_sentence
    from layerscope.verdicts.comparison import sentence

    header = (
        "checkpoint",
        "task",
        "estimator",
        "best",
        "metric",
        "value",
        "tied with",
        "gain over trunk",
    )
    table = terminal.table(header, [_row(verdict) for verdict in verdicts])
    judges: dict[str, set[str]] = {}
    for verdict in verdicts:
        judges.setdefault(verdict.task, set()).add(verdict.estimator)

    def named(verdict: Verdict) -> str:
        several = len(judges[verdict.task]) > 1
        return f"{verdict.checkpoint}, {verdict.estimator}" if several else verdict.checkpoint

    unread, lines = (
        [
            f"{named(verdict)}: {sentence(verdict, tasks[verdict.task].title)}"
            for verdict in verdicts
            if verdict.unread == of_none
        ]
        for of_none in (True, False)
    )
    titles = {name: task.title for name, task in tasks.items() if task.title}
    shared = [f"{one.checkpoint}: {common_cut_sentence(one, titles)}" for one in common]
    notes = [
        f"{named(verdict)}, {verdict.task}: {verdict.note}" for verdict in verdicts if verdict.note
    ]
    return "\n".join([*unread, table, "", *lines, *shared, *notes])


def _row(verdict: Verdict) -> tuple[str, ...]:
    from layerscope.verdicts.comparison import named

    others = [cut for cut in verdict.tied if cut != verdict.best]
    tied = named(verdict, others) or "none"
    return (
        verdict.checkpoint,
        f"{verdict.task} [{verdict.way}]" if verdict.way else verdict.task,
        verdict.estimator,
        "none" if verdict.unread else verdict.label(verdict.best),
        verdict.metric,
        _interval(verdict.value),
        "" if verdict.unread else tied,
        _interval(verdict.gain),
    )


def _interval(interval: Interval) -> str:
    return f"{interval.estimate:.3g} [{interval.low:.3g}, {interval.high:.3g}]"

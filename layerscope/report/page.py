"""One self-contained HTML page: verdicts first, then figures, tables and provenance."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from layerscope.report import table
from layerscope.types import Score, Verdict
from layerscope.verdicts.common_cut import CommonCut
from layerscope.verdicts.grid import Grid
from layerscope.verdicts.scorecard import MeasureScore
from layerscope.verdicts.series import Series
from layerscope.version import __version__

PACKAGES = ("torch", "numpy", "scikit-learn", "matplotlib")

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #666; --line: #ddd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --faint: #a0a0a0; --line: #3a3d44; }
}
body { color: var(--ink); background: var(--paper); margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
figure { margin: 1rem 0; background: #fff; padding: .5rem; border-radius: 6px; }
figure img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
.random, .note { color: var(--faint); }
pre { overflow-x: auto; font-size: .8rem; }
"""

NOTE = """
<h2>How a verdict is made, and what it does not say</h2>
<p>A probe is fitted on the training split at every cut. Its strength and the <em>best cut</em> are
chosen on the validation split; every number above comes from the test split, which had no part in
either choice. Cuts are compared on the same test images, and images that share a group (an object)
count as one independent unit. The <em>tied set</em> holds every cut that a simultaneous test over
all layers cannot tell from the best; the <em>shallowest</em> of them is the cheapest answer that
the data allow. A <em>gain</em> is positive when the best cut is better, in the metric's own
unit. A best cut marked (!) was chosen on validation and rejected by the test split.</p>
<p>A tie says that these test data cannot separate the layers, not that the layers are equal. An
interval covers the choice of test images and, to first order, of those that the probe was fitted
on; it does not cover training the network anew, another kind of probe, fine-tuning, or images from
elsewhere. Tasks and checkpoints are judged one by one: no correction is made for looking at many
of them. An <em>oracle</em>, the best number on the test split itself, appears nowhere on this
page.</p>
"""

ACROSS_NOTE = """The one cut has the least mean regret on the validation splits of all tasks. A
regret is the loss there minus that of the task's own best cut, a gain that of the trunk minus that
of the one cut; both come from the test split, in units of the task's validation loss at an
average cut."""

SCORECARD_NOTE = """How well measures that train no probe rank the cuts of each checkpoint, and what
it would cost to trust them. Kendall's τ compares a measure, turned so that more is meant to be
better, with the probe's metric on the test split; its interval is over test images, the probe's
training rows and the measure's own standard error, for the layers at hand. The regret is what the
test split loses at the measure's best cut against the probe's own choice on validation; beside it
stand the regret of the usual cut and that of a cut drawn at random. Intervals are not corrected for
their number. No verdict takes any of this into account."""

SERIES_NOTE = """The peak is the epoch that the validation split prefers; the fall is what the test
split has lost from there to the last epoch, paired over the same images: a cut over-fits if the
fall's interval lies above nought. τ compares a measure with the probe over the epochs of the run;
they are given and not a sample, so that its interval is over test images."""

GRID_NOTE = """Every run counts once, with its last snapshot. Intervals draw whole runs, as if the
grid were a sample of the settings that might have been tried. A correlation of runs that are all in
one order has no interval: no resample can disagree with it."""

FOLDED = 30
"""Rows above which a table is folded."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the page shows."""

    scores: Sequence[Score]
    verdicts: Sequence[Verdict]
    sentences: Sequence[str]
    """One for each verdict."""
    images: Mapping[str, Path]
    """By caption: a figure's SVG."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the results were made with."""
    across: Sequence[CommonCut] = ()
    """One cut for all tasks of a checkpoint."""
    remarks: Sequence[str] = ()
    """One sentence for each of those, and why there is none for a checkpoint of several tasks."""
    standings: Sequence[MeasureScore] = ()
    """The scorecard of measures."""
    series: Sequence[Series] = ()
    grids: Sequence[Grid] = ()
    of_measures: Sequence[str] = ()
    """One sentence for each measure."""
    of_runs: Sequence[str] = ()
    """One sentence for each series, and why there is none."""
    of_grids: Sequence[str] = ()
    """One sentence for each grid."""


def page(content: Content) -> str:
    """Return the whole page; it refers to nothing outside itself."""
    sections = (
        _sentences(content.verdicts, content.sentences),
        _figures(content.images),
        _table(content.verdicts),
        _across(content.across, content.remarks),
        _scorecard(content),
        _series(content),
        _grids(content),
        _failed(content.scores),
        NOTE,
        _provenance(content.scores, content.settings),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>LayerScope: where to cut</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Where to cut</h1>\n{''.join(sections)}</body>\n</html>\n"
    )


def _sentences(verdicts: Sequence[Verdict], sentences: Sequence[str]) -> str:
    by_checkpoint: dict[tuple[bool, str], list[str]] = {}
    for verdict, text in zip(verdicts, sentences, strict=True):
        key = (not verdict.trained, verdict.checkpoint)
        by_checkpoint.setdefault(key, []).append(f"{text} {verdict.note}".strip())
    ordered = sorted(by_checkpoint.items(), key=lambda item: item[0][0])
    return "".join(_section(name, texts, random) for (random, name), texts in ordered)


def _section(checkpoint: str, texts: Iterable[str], random: bool) -> str:
    items = "".join(f"<li>{escape(text)}</li>\n" for text in texts)
    # Random weights are the baseline: there on demand, not in the way of the verdicts.
    if random:
        summary = f"<summary>{escape(checkpoint)}</summary>"
        return f'<details class="random">{summary}<ul>\n{items}</ul></details>\n'
    return f"<h2>{escape(checkpoint)}</h2>\n<ul>\n{items}</ul>\n"


def _figures(images: Mapping[str, Path]) -> str:
    shown = "".join(_figure(caption, path) for caption, path in images.items())
    return f"<h2>Figures</h2>\n{shown}"


def _figure(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}</figure>\n"


def _table(verdicts: Sequence[Verdict]) -> str:
    return "<h2>Cut table</h2>\n" + _rows(table.HEADER, table.cells(verdicts), table.NUMBERS)


def _across(found: Sequence[CommonCut], remarks: Sequence[str]) -> str:
    if not found and not remarks:
        return ""
    items = "".join(f"<li>{escape(text)}</li>\n" for text in remarks)
    html = f"<h2>One cut for all tasks</h2>\n<ul>\n{items}</ul>\n"
    if not found:
        return html
    rows = _rows(table.ACROSS, table.across_cells(found), table.ACROSS_NUMBERS)
    return f'{html}{rows}<p class="note">{ACROSS_NOTE}</p>\n'


def _scorecard(content: Content) -> str:
    if not content.standings:
        return ""
    rows = table.standing_cells(content.standings)
    html = "<h2>Scorecard of measures</h2>\n" + _list(content.of_measures)
    html += _folded(table.SCORECARD, rows, table.SCORECARD_NUMBERS)
    return f'{html}<p class="note">{SCORECARD_NOTE}</p>\n'


def _series(content: Content) -> str:
    if not content.series and not content.of_runs:
        return ""
    html = "<h2>Layers along training</h2>\n" + _list(content.of_runs)
    html += _folded(table.SERIES, table.course_cells(content.series), table.SERIES_NUMBERS)
    followers = table.follower_cells(content.series)
    if followers:
        html += _folded(table.FOLLOWERS, followers, table.FOLLOWERS_NUMBERS)
    return f'{html}<p class="note">{SERIES_NOTE}</p>\n'


def _grids(content: Content) -> str:
    if not content.grids:
        return ""
    html = "<h2>Trunk and head over a grid</h2>\n" + _list(content.of_grids)
    return f'{html}<p class="note">{GRID_NOTE}</p>\n'


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>\n" for text in texts)
    return f"<ul>\n{items}</ul>\n"


def _folded(
    header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> str:
    """Return a table, behind a line that tells its length where it is long."""
    if len(rows) <= FOLDED:
        return _rows(header, rows, numbers)
    summary = f"<summary>{len(rows)} rows</summary>"
    return f"<details>{summary}{_rows(header, rows, numbers)}</details>\n"


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        classes = [' class="number"' if i in numbers else "" for i in range(len(cells))]
        inner = (
            f"<{tag}{c}>{escape(cell)}</{tag}>" for c, cell in zip(classes, cells, strict=True)
        )
        return f"<tr>{''.join(inner)}</tr>\n"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>\n{line(header, "th")}{body}</table></div>\n'


def _failed(scores: Sequence[Score]) -> str:
    failures = table.failures(scores)
    if not failures:
        return ""
    rows = [tuple(record.values()) for record in failures]
    count = f"<h2>Cells without a value: {len(rows)}</h2>\n"
    return count + _rows(tuple(failures[0]), rows)


def _provenance(scores: Sequence[Score], settings: Mapping[str, Any]) -> str:
    header = ("checkpoint", "source", "fingerprint", "train", "val", "test", "groups", "seeds")
    html = "<h2>Provenance</h2>\n" + _rows(header, _caches(scores), (3, 4, 5, 6))
    html += _rows(("package", "version"), list(versions().items()))
    if settings:
        text = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True, default=str)
        html += f"<details><summary>Settings</summary><pre>{escape(text)}</pre></details>\n"
    return html


def _caches(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Return one row for every cache, whichever estimators read it."""
    seeds: dict[tuple[str, ...], set[int]] = {}
    for s in scores:
        counts = (s.n_train, s.n_val, s.n_test, s.n_groups)
        row = (s.checkpoint, s.source, s.fingerprint, *map(str, counts))
        seeds.setdefault(row, set()).add(s.seed)
    return [(*row, ", ".join(map(str, sorted(known)))) for row, known in seeds.items()]


def versions() -> dict[str, str]:
    """Return the versions of what drew the page and of what usually computes the scores."""
    known = {"layerscope": __version__, "python": python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            known[package] = "not installed"
    return known

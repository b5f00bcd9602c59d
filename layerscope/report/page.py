"""One self-contained HTML page: verdicts first, then figures, tables and provenance."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from layerscope.report.section import Finding, Headline, Table
from layerscope.results.grouping import grouped
from layerscope.types import Score
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
unit. A best cut marked (!) was chosen on validation and rejected by the test split. A
<em>constant</em> answer knows the training targets and no image: the mean, or the shares of the
classes. Where the best cut's gain over it does not exclude nought, no cut is recommended. Cuts
whose features are the same numbers are one cut, shown with all its names.</p>
<p>A tie says that these test data cannot separate the layers, not that the layers are equal. An
interval covers the choice of test images and, to first order, of those that the probe was fitted
on; it does not cover training the network anew, another kind of probe, fine-tuning, or images from
elsewhere. Tasks and checkpoints are judged one by one: no correction is made for looking at many
of them. An <em>oracle</em>, the best number on the test split itself, appears nowhere on this
page.</p>
"""

FOLDED = 30
"""Rows above which a table is folded."""


def page(
    findings: Sequence[Finding],
    images: Mapping[str, Path],
    scores: Sequence[Score],
    settings: Mapping[str, Any],
) -> str:
    """Return the whole page, with SVG images by caption; it refers to nothing outside itself."""
    parts = (
        _headlines([line for finding in findings for line in finding.headlines]),
        "<h2>Figures</h2>\n",
        *itertools.starmap(_figure, images.items()),
        *map(_finding, findings),
        NOTE,
        _provenance(scores, settings),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>LayerScope: where to cut</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Where to cut</h1>\n{''.join(parts)}</body>\n</html>\n"
    )


def _headlines(headlines: Sequence[Headline]) -> str:
    by_checkpoint = grouped(headlines, "trained", "checkpoint")
    ordered = sorted(by_checkpoint.items(), key=lambda item: not item[0][0])
    return "".join(
        _checkpoint(name, [line.text for line in lines], trained)
        for (trained, name), lines in ordered
    )


def _checkpoint(name: str, texts: Sequence[str], trained: bool) -> str:
    if trained:
        return f"<h2>{escape(name)}</h2>\n{_list(texts)}"
    # Random weights are the baseline: there on demand, not in the way of the verdicts.
    summary = f"<summary>{escape(name)}</summary>"
    return f'<details class="random">{summary}{_list(texts).rstrip()}</details>\n'


def _finding(finding: Finding) -> str:
    if not finding.sentences and not finding.tables:
        return ""
    html = f"<h2>{escape(finding.title)}</h2>\n"
    html += _list(finding.sentences) if finding.sentences else ""
    html += "".join(map(_table, finding.tables))
    note = escape(finding.note, quote=False)
    return html + (f'<p class="note">{note}</p>\n' if note else "")


def _figure(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}</figure>\n"


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>\n" for text in texts)
    return f"<ul>\n{items}</ul>\n"


def _table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        inner = ""
        for i, cell in enumerate(cells):
            kind = ' class="number"' if i in table.numbers else ""
            inner += f"<{tag}{kind}>{escape(cell)}</{tag}>"
        return f"<tr>{inner}</tr>\n"

    lines = line(table.header, "th") + "".join(line(row, "td") for row in table.rows)
    html = f'<div class="wide"><table>\n{lines}</table></div>\n'
    if not table.may_fold or len(table.rows) <= FOLDED:
        return html
    return f"<details><summary>{len(table.rows)} rows</summary>{html}</details>\n"


def _provenance(scores: Sequence[Score], settings: Mapping[str, Any]) -> str:
    header = ("checkpoint", "source", "fingerprint", "train", "val", "test", "groups", "seeds")
    html = "<h2>Provenance</h2>\n" + _table(Table(header, _caches(scores), (3, 4, 5, 6)))
    html += _table(Table(("package", "version"), list(versions().items())))
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

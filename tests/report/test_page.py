from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from layerscope.report.page import page
from layerscope.report.section import Finding, Headline
from layerscope.report.sections.across import Across
from layerscope.report.sections.failures import Failures
from layerscope.report.sections.verdicts import cut_table
from layerscope.types import Interval
from layerscope.verdicts.common_cut import CommonCut, Regret
from tests.report.conftest import evidence

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def svg(tmp_path: Path) -> Path:
    path = tmp_path / "depth.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    return path


def shown(scores, verdicts, svg: Path, *more: Finding, settings=None) -> str:
    lines = [
        Headline(v.checkpoint, f"{v.task}: cut at {v.best}. {v.note}", v.trained) for v in verdicts
    ]
    first = Finding("Cut table", headlines=lines, tables=[cut_table(verdicts)])
    findings = [first, *more, Failures().find(evidence(scores))]
    return page(findings, {"depth": svg}, scores, settings or {})


class Links(HTMLParser):
    """Collects every address that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [value for name, value in attrs if name in {"src", "href", "srcset"}]


def test_verdicts_come_before_figures_tables_and_provenance(scores, verdicts, svg):
    html = shown(scores, verdicts, svg)
    order = ["cut at", ">Figures<", ">Cut table<", "How a verdict is made", ">Provenance<"]
    at = [html.index(word) for word in order]
    assert at == sorted(at)


def test_one_cut_for_all_tasks_stands_between_the_cut_table_and_the_method(
    scores, verdicts, svg, monkeypatch
):
    none = Interval(0.0, 0.0, 0.0)
    regret = Regret("hue", "ridge", "layer2.0", Interval(0.041, 0.02, 0.06), none)
    found = CommonCut("net", "layer3.0", "trunk", none, none, (regret,), (), 0.95)
    reached = ([found], [f"net: One cut. {HOSTILE}"])
    monkeypatch.setattr("layerscope.report.sections.across.common_cuts", lambda *_, **__: reached)
    html = shown(scores, verdicts, svg, Across().find(evidence(scores)))
    order = [">Cut table<", ">One cut for all tasks<", "net: One cut.", "+0.041 [0.020, 0.060]"]
    at = [html.index(word) for word in [*order, "How a verdict is made"]]
    assert at == sorted(at)
    assert HOSTILE not in html
    assert "One cut for all tasks" not in shown(scores, verdicts, svg)


def test_random_weights_are_folded_behind_the_trained_networks(scores, verdicts, svg):
    html = shown(scores, verdicts, svg)
    assert html.index("<summary>simclr-objects3d-random") > html.index("<h2>rotation-objects3d<")


def test_nothing_outside_the_page_is_loaded(scores, verdicts, svg):
    html = shown(scores, verdicts, svg)
    links = Links()
    links.feed(html)
    assert links.found
    assert all(address.startswith("data:") for address in links.found)
    assert not links.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|http", html)


def test_a_hostile_name_is_only_text(scores, verdicts, fail, svg):
    rows = [fail(replace(scores[0], checkpoint=HOSTILE, note=HOSTILE)), *scores[1:]]
    found = [replace(verdicts[0], checkpoint=HOSTILE, best=HOSTILE, note=HOSTILE)]
    html = shown(rows, found, svg, settings={"tasks": HOSTILE})
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_failed_cells_are_listed_with_their_reason(scores, verdicts, fail, svg):
    assert "Cells without a value" not in shown(scores, verdicts, svg)
    html = shown([fail(scores[0]), *scores[1:]], verdicts, svg)
    assert "Cells without a value: 1" in html
    assert "singular" in html


def test_provenance_names_caches_counts_versions_and_settings(scores, verdicts, svg):
    html = shown(scores, verdicts, svg, settings={"probe": {"tasks": "objects3d"}})
    for word in ("sha256:simclr-objects3d", ">6000<", ">layerscope<", "&quot;tasks&quot;"):
        assert word in html


def test_the_page_says_what_a_verdict_does_not_say(scores, verdicts, svg):
    html = shown(scores, verdicts, svg)
    assert "not that the layers are equal" in html
    assert "does not cover training the network anew" in html


def test_the_same_content_gives_the_same_page(scores, verdicts, svg):
    assert shown(scores, verdicts, svg) == shown(scores, verdicts, svg)

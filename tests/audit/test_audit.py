"""Every number against its definition, which is written again from the paper and shares no code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layerscope.estimators import estimators
from layerscope.types import UNLABELLED, Measure
from tests.audit.cases import Case, cases
from tests.audit.entries import AUDITED, Audited

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
PAIRS = [(entry, case) for entry in AUDITED for case in cases()
         if case.condition in entry.conditions]  # fmt: skip


@pytest.mark.parametrize(("entry", "case"), PAIRS, ids=lambda it: it.name)
def test_it_is_its_definition(entry: Audited, case: Case):
    found = entry.deviations(case)
    assert found
    assert {name: it for name, it in found.items() if not it <= entry.within} == {}


def test_every_measure_is_audited():
    known = {entry.name.partition("(")[0] for entry in AUDITED}
    measures = {name for name, maker in estimators.items() if isinstance(maker(0), Measure)}
    assert measures - known == set()


def test_the_page_has_every_entry_within_its_bound():
    row = r"^\| `([^`]+)`(?: on ([a-z]+))? \| .+ \| ([\de.-]+) \|$"
    rows = re.findall(row, PAGE.read_text(), re.MULTILINE)
    bounds = {(entry.name, entry.task.name): entry.within for entry in AUDITED}
    rows = [(name, task or UNLABELLED.name, found) for name, task, found in rows]
    assert {(name, task) for name, task, _ in rows} == set(bounds), "run make reference"
    wide = [name for name, task, found in rows if not float(found) <= 10 * bounds[name, task]]
    assert wide == []

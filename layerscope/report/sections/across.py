"""One cut for all tasks of a checkpoint, where it has several."""

from __future__ import annotations

from collections.abc import Iterable

from layerscope.report.evidence import Evidence
from layerscope.report.section import Finding, Section, Table, sections
from layerscope.report.table import signed
from layerscope.verdicts.common_cut import CommonCut, common_cuts, sentence

HEADER = ("checkpoint", "task", "estimator", "one cut", "own best", "regret", "gain over trunk")
NUMBERS = (5, 6)
NOTE = """The one cut has the least mean regret on the validation splits of all tasks. A
regret is the loss there minus that of the task's own best cut, a gain that of the trunk minus that
of the one cut; both come from the test split, in units of the task's validation loss at an
average cut."""


@sections.register("across")
class Across(Section):
    """One cut for all tasks of a checkpoint, and what each task gives up for it."""

    order = 20

    def find(self, evidence: Evidence) -> Finding:
        found, reasons = common_cuts(evidence.comparisons, seed=evidence.seed)
        texts = [f"{one.checkpoint}: {sentence(one, evidence.titles)}" for one in found]
        return Finding(
            "One cut for all tasks",
            sentences=[*texts, *reasons],
            tables=[Table(HEADER, cells(found), NUMBERS)] if found else [],
            note=NOTE if found else "",
            records=found,
        )


def cells(found: Iterable[CommonCut]) -> list[tuple[str, ...]]:
    """Return a row for every task and one for their mean, under :data:`HEADER`."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        for task in one.tasks:
            values = (task.own, signed(task.regret), signed(task.gain))
            rows.append((one.checkpoint, task.task, task.estimator, one.label(one.cut), *values))
        mean = (signed(one.regret), signed(one.gain))
        rows.append(
            (one.checkpoint, f"mean of {len(one.tasks)}", "", one.label(one.cut), "", *mean)
        )
    return rows

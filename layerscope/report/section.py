"""Sections of the report: what one says of a folder of results, and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from matplotlib.figure import Figure

from layerscope.registry import Registry
from layerscope.report.evidence import Evidence
from layerscope.results.grouping import grouped

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as a person reads it: every cell is text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] = ()
    """Columns of numbers, which stand to the right."""
    may_fold: bool = False
    """Whether the page may hide a long table behind a line that says how long it is."""


@dataclass(frozen=True, slots=True)
class Headline:
    """A sentence that belongs to the top of the page, under the name of its checkpoint."""

    checkpoint: str
    text: str
    trained: bool = True
    """Whether the checkpoint was trained; what is said of random weights is folded away."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one section found. Whatever is empty is left out of the report."""

    title: str
    """Heading on the page, over sentences, tables and note."""
    headlines: Sequence[Headline] = ()
    sentences: Sequence[str] = ()
    """Shown on the page, and printed by ``layerscope report``."""
    tables: Sequence[Table] = ()
    note: str = ""
    """How to read the section; shown where there is a sentence or a table."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By the name of the file, without its ending."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts by the name of the file, such as a table in CSV."""
    records: Sequence[Any] | None = None
    """For JSON, under the section's name: mappings or dataclasses. None leaves the name out."""


class Section(ABC):
    """One part of the report. Subclass it, register the class, and the report shows it."""

    order: ClassVar[int] = 80
    """Place on the page: verdicts have 10, a scorecard 30, series 40, grids 50, failures 90."""

    @abstractmethod
    def find(self, evidence: Evidence) -> Finding:
        """Return what there is to say; figures are drawn here, in the report's look."""


sections: Registry[type[Section]] = Registry(
    "section", package="layerscope.report.sections", group="layerscope.sections"
)
"""Sections by name; the name is also the key in JSON."""


def by_source(
    name: str, found: Iterable[T], draw: Callable[[list[T]], Figure | None]
) -> dict[str, Figure]:
    """Return a figure for every source of what was found, where there is one to draw."""
    drawn = {f"{name}-{it}": draw(some) for it, some in grouped(found, "source").items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def find_all(evidence: Evidence) -> dict[str, Finding]:
    """Return what every section finds, in the order of the page."""
    ordered = sorted(sections.items(), key=lambda item: item[1].order)
    return {name: section().find(evidence) for name, section in ordered}

"""CKA: how alike the layers of one checkpoint, or of two, arrange the same images."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import numpy as np

from layerscope.report.cka_map import similarity_map
from layerscope.report.evidence import Evidence
from layerscope.report.section import Finding, Section, Table, sections
from layerscope.report.table import csv_text
from layerscope.results.layer_cka import LayerCka, similarities

NOTE = """Linear CKA, unbiased: 1 is the same arrangement of the images up to rotation and scale,
about 0 are unrelated layers. What a layer says and how alike it is to others are two questions: no
verdict takes this into account."""


@sections.register("cka")
class Similarities(Section):
    """Similarity of layers, from ``layerscope cka -o``."""

    order = 70

    def find(self, evidence: Evidence) -> Finding:
        found = similarities(evidence.folder)
        return Finding(
            "Similarity of layers",
            sentences=[sentence(one) for one in found],
            tables=[similarity_table(one) for one in found],
            note=NOTE,
            figures={f"cka-{one.name}": similarity_map(one) for one in found},
            files={"cka.csv": cka_csv(found)} if found else {},
            records=[one.record() for one in found] if found else None,
        )


def sentence(found: LayerCka) -> str:
    """Return in one plain sentence where layers change, or which of two checkpoints are alike."""
    one, other = found.checkpoints
    asked = f"{found.images:,} {found.split} images of {found.source}"
    rows, columns = ([cut.key for cut in cuts] for cuts in found.cuts)
    if one == other:
        steps = {
            f"{rows[i]} and {rows[i + 1]}": float(found.unbiased[i, i + 1])
            for i in range(len(rows) - 1)
        }
        what, of = "neighbouring cuts", one
    else:
        steps = {
            key: float(found.unbiased[i, columns.index(key)])
            for i, key in enumerate(rows)
            if key in columns
        }
        what, of = "cuts of the same name", f"{one} and {other}"
    known = {name: value for name, value in steps.items() if np.isfinite(value)}
    if not known:
        return f"{of}, {asked}: CKA is defined for no {what}."
    least = min(known, key=known.__getitem__)
    return (
        f"{of}, {asked}: CKA of {what} is {median(known.values()):.2f} in the median and least, "
        f"{known[least]:.2f}, for {least}."
    )


def similarity_table(found: LayerCka, *, biased: bool = False) -> Table:
    """Return one of the estimates as a table; what is not defined is left blank."""
    rows, columns = found.cuts
    corner = " \\ ".join(dict.fromkeys(found.checkpoints))
    lines = [
        (cut.key, *("" if np.isnan(one) else f"{one:.2f}" for one in values))
        for cut, values in zip(rows, found.biased if biased else found.unbiased, strict=True)
    ]
    numbers = range(1, 1 + len(columns))
    return Table((corner, *(cut.key for cut in columns)), lines, numbers, may_fold=True)


def cka_csv(found: Iterable[LayerCka]) -> str:
    """Return one row for every pair of cuts."""
    return csv_text(
        {
            "source": one.source,
            "split": one.split,
            "images": one.images,
            "checkpoint": one.checkpoints[0],
            "cut": row.key,
            "other_checkpoint": one.checkpoints[1],
            "other_cut": column.key,
            "unbiased": float(one.unbiased[i, j]),
            "biased": float(one.biased[i, j]),
        }
        for one in found
        for i, row in enumerate(one.cuts[0])
        for j, column in enumerate(one.cuts[1])
    )

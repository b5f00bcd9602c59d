"""Probing: every estimator at every cut of every cache, and which rows of a layer train it.

An :class:`Arrangement` names which rows train and how they are seen; :func:`arranged` is the layer
as estimators then see it.
"""

from __future__ import annotations

from layerscope.probing.arrangement import Arrangement, arranged, arrangements
from layerscope.probing.cells import SweepReport, sweep
from layerscope.probing.duplicates import find_shared_rows
from layerscope.probing.folds import joined

__all__ = [
    "Arrangement",
    "SweepReport",
    "arranged",
    "arrangements",
    "find_shared_rows",
    "joined",
    "sweep",
]

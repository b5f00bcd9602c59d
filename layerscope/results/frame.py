"""The table of scores in columns of their types: Arrow, and a frame."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from layerscope.errors import LayerScopeError
from layerscope.types import COLUMNS, Score

if TYPE_CHECKING:
    import pandas

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


def arrow(scores: Sequence[Score]) -> pa.Table:
    """Return scores as a table: settings are JSON, and a number that is missing is null."""
    rows = [score.row() for score in scores]
    columns = {
        name: pa.array([_cell(row[name]) for row in rows], type=kind)
        for name, kind in _columns().items()
    }
    return pa.table(columns)


def to_pandas(scores: Sequence[Score]) -> pandas.DataFrame:
    """Return scores as a frame.

    Raises:
        LayerScopeError: pandas is not installed.
    """
    try:
        return arrow(scores).to_pandas()
    except ModuleNotFoundError as error:
        raise LayerScopeError(
            f"A frame needs the Python package {error.name}, which is not installed.",
            hint="Install it with: pip install pandas",
        ) from error


def _columns() -> dict[str, pa.DataType]:
    # Literals and mappings are text.
    kinds = {field.name: str(field.type) for field in fields(Score)}
    return {name: _TYPES.get(kinds.get(name, "str"), pa.string()) for name in COLUMNS}


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

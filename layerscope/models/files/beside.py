"""The small JSON files that training code and hubs leave beside a file of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerscope.errors import CheckpointError

NAMES = (
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "args.json",
    "params.json",
)
"""Names of files that tell what weights cannot."""

_LARGEST = 1 << 20


def read_beside(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the JSON files in the folder of a file of weights, parsed, by their names.

    Raises:
        CheckpointError: One of them is damaged, too large, or no table.
    """
    found = (path.with_name(name) for name in NAMES)
    return {file.name: _table(file) for file in found if file.is_file()}


def _table(path: Path) -> Mapping[str, Any]:
    hint = "Mend it, or move it or the weights to another folder."
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(
            f"{str(path)!r} beside the weights has {path.stat().st_size} bytes, too many for "
            "settings.",
            hint=hint,
        )
    try:
        parsed = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{str(path)!r} beside the weights is no JSON: {str(error).rstrip('.')}.", hint=hint
        ) from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{str(path)!r} beside the weights is no table of JSON.", hint=hint)
    return parsed
